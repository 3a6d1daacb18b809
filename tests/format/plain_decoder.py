"""A `.polc` decoder in plain Python, written from docs/bitstream.md and docs/bundle.md alone.

It shares no code with polc, so that what the two agree on is what the documents say. `plain_container` takes
files apart, `plain_plan` reads the coding plan. Comments name the sections of docs/bitstream.md.

It needs numpy and onnxruntime, is slow, and raises ValueError for every fault.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from plain_container import CALIBRATION, CHECKSUMS, Container, Y, Z, leb128, number, parse
from plain_plan import Plan, joined, step_views

MASK64 = 2**64 - 1
MAX_ARRAY = 2**24
Arrays = dict[str, np.ndarray]


def own_rows(scales: np.ndarray, table: np.ndarray) -> np.ndarray:
    if not np.isfinite(scales).all():
        raise ValueError("a scale is not finite")
    return np.minimum(np.searchsorted(table, scales, side="left"), len(table) - 1)


# Calibration
def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return x ^ (x >> 31)


class Calibration:
    def __init__(self, content: bytes, steps: int = 9):
        size = -(-steps // 2)
        if len(content) <= size or steps % 2 and content[size - 1] >> 4:
            raise ValueError("a calibration that is too short, or whose last half byte is not 0")
        self.exponents = [(content[i // 2] >> 4 * (i % 2) & 15) + 6 for i in range(steps)]
        self.seed, self.solution = content[size], content[size + 1 :]

    def lookup(self, key: int) -> int:
        m = 8 * len(self.solution)
        first = mix(((256 * key + self.seed + 1) * 0x9E3779B97F4A7C15) & MASK64)
        w = min(64, m)
        start = ((first >> 32) * (m - w + 1) & MASK64) >> 32
        mask = mix(first) & ((1 << w) - 1) | 1
        window = number(self.solution, start // 8, 9) >> start % 8
        return bin(window & mask).count("1") % 2

    def rows(self, scales: np.ndarray, own: np.ndarray, table: np.ndarray, step: int, key: int) -> np.ndarray:
        """The encoder's rows, given the decoder's `own`; `key` is the number of the step's first symbol."""
        if not self.solution:
            return own
        t = 2.0 ** -self.exponents[step]
        s, e = scales.astype(np.float64), table.astype(np.float64)
        before = np.maximum(own - 1, 0)
        near_before = (own > 0) & (s <= e[before] * (1 + t))
        near_own = (own < len(e) - 1) & (s >= e[own] * (1 - t))
        rows = own.copy()
        for i in np.flatnonzero(near_before | near_own):
            rows[i] = (before[i] if near_before[i] else own[i]) + self.lookup(key + int(i))
        return rows


# Tables
class Table:
    def __init__(self, cdf: np.ndarray, lengths: np.ndarray, offsets: np.ndarray):
        self.rows = [row[:length].tolist() for row, length in zip(cdf, lengths, strict=True)]
        self.offsets = offsets.tolist()
        for row in self.rows:
            if len(row) < 2 or row[0] != 0 or row[-1] != 65536 or (np.diff(row) <= 0).any():
                raise ValueError("a table with a row that does not rise from 0 to 65536")


# Coder
class Stream:
    def __init__(self, data: bytes):
        if len(data) % 4 or len(data) < 8:
            raise ValueError(f"a stream of {len(data)} bytes, not of two or more words")
        self.words = [number(data, at, 4) for at in range(0, len(data), 4)]
        self.state, self.next = self.words[0] | self.words[1] << 32, 2
        if not 2**31 <= self.state < 2**63:
            raise ValueError("a stream that starts with an impossible state")

    def pop(self, start: int, width: int, k: int) -> None:
        x = width * (self.state >> k) + self.state % 2**k - start
        if x < 2**31:
            if self.next == len(self.words):
                raise ValueError("a stream ends too soon")
            x = x << 32 | self.words[self.next]
            self.next += 1
        self.state = x

    def digit(self) -> int:
        digit = self.state % 16
        self.pop(digit, 1, 4)
        return digit

    def symbol(self, row: list[int], offset: int) -> int:
        v = bisect_right(row, self.state % 2**16) - 1
        self.pop(row[v], row[v + 1] - row[v], 16)
        e = len(row) - 2
        if v < e:
            return offset + v
        digits = self.digit()
        if digits > 8:
            raise ValueError("an escape of more than 8 digits")
        raw = sum(self.digit() << 4 * i for i in range(digits))
        symbol = offset - 1 - raw // 2 if raw % 2 else offset + e + raw // 2
        if not -(2**31) <= symbol < 2**31:
            raise ValueError("a symbol beyond 32 bits")
        return symbol

    def symbols(self, rows: Sequence[int], table: Table) -> list[int]:
        return [self.symbol(table.rows[row], table.offsets[row]) for row in rows]

    def finish(self) -> None:
        if self.next != len(self.words) or self.state != 2**31:
            raise ValueError("a stream has words left, or was made with another table")


def split_streams(content: bytes, symbols: int) -> list[Stream]:
    """The streams of the section y of a latent of that many symbols (Sections)."""
    count = 1 if symbols < 2**16 else min(symbols // 2**16, 16)
    lengths, at = [], 0
    for _ in range(count - 1):
        length, at = leb128(content, at)
        lengths.append(length)
    lengths.append(len(content) - at - sum(lengths))
    if lengths[-1] < 0:
        raise ValueError("the streams are longer than their section")
    ends = np.cumsum(lengths) + at
    return [Stream(content[end - length : end]) for length, end in zip(lengths, ends, strict=True)]


# docs/bundle.md
class Bundle:
    """The graphs and tables of a bundle's folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if self.manifest["format"][0] != 1:
            raise ValueError(f"bundle format {self.manifest['format']}, not 1.x")
        self.graphs = {graph["name"]: graph for graph in self.manifest["graphs"]}
        self.sessions: dict[str, ort.InferenceSession] = {}
        with np.load(io.BytesIO(self.read(self.manifest["entropy"])), allow_pickle=False) as arrays:
            if any(arrays[name].nbytes > MAX_ARRAY for name in arrays):
                raise ValueError("an array of entropy.npz is over the limit")
            self.medians = arrays["medians"]
            if "coding" in self.manifest:
                self.plan = Plan(self.manifest["coding"])
            else:
                channels = self.graphs["synthesis"]["inputs"]["y_hat"][1]
                self.plan = Plan.of_version_1(channels, len(self.medians))
            parts = ("cdf", "lengths", "offsets")
            self.hyper = Table(*(arrays[f"hyper_{part}"] for part in parts))
            if self.plan.hyper:
                self.latent = Table(*(arrays[f"latent_{part}"] for part in parts))
                self.scale_table = arrays["scale_table"]

    def read(self, entry: dict[str, Any]) -> bytes:
        data = (self.folder / entry["file"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(f"{entry['file']} is not the file that the manifest means")
        return data

    def run(self, name: str, **inputs: np.ndarray) -> Arrays:
        """Runs a graph on those of `inputs` that it takes."""
        graph = self.graphs[name]
        if name not in self.sessions:
            options = ort.SessionOptions()  # as Agreement between machines says
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            self.sessions[name] = ort.InferenceSession(self.read(graph), options, ["CPUExecutionProvider"])
        outputs = list(graph["outputs"])
        given = {key: inputs[key] for key in graph["inputs"]}
        return dict(zip(outputs, self.sessions[name].run(outputs, given), strict=True))


# A whole file
@dataclass(frozen=True)
class Decoded:
    """A file's parts, the symbols of z (if any) and of each step as coded, and y_hat [M, rows, columns]."""

    container: Container
    symbols: list[np.ndarray]
    y_hat: np.ndarray


def checked(symbols: list[int], checksums: bytes, step: int) -> np.ndarray:
    """The symbols of z (step -1) or of a step as an array, after comparing their checksum."""
    array = np.array(symbols, "<i4")
    if zlib.crc32(array.tobytes()) % 2**16 != number(checksums, 2 * (step + 1), 2):
        raise ValueError(f"the symbols of {'z' if step < 0 else f'step {step}'} differ from the encoder's")
    return array


def decode_z(file: Container, bundle: Bundle) -> tuple[np.ndarray, Arrays]:
    """The symbols of z, and what the hyper-latent's graph makes of them; nothing where there is no z."""
    sections, hyper = file.critical(), bundle.plan.hyper
    if hyper is None:
        return checked([], sections[CHECKSUMS], -1), {}
    shape = bundle.plan.shape(hyper, file)
    stream, channels = Stream(sections[Z]), np.repeat(np.arange(shape[0]), shape[1] * shape[2]).tolist()
    z = checked(stream.symbols(channels, bundle.hyper), sections[CHECKSUMS], -1)
    stream.finish()
    z_hat = z.reshape(shape).astype(np.float32) + bundle.medians[:, None, None]
    return z, bundle.run(hyper["graph"], z_hat=z_hat[None], quality=np.array([file.quality], np.float32))


def run_step(
    graph: str | None, bundle: Bundle, hyper_outputs: Arrays, passed_on: Arrays, y_hat: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The scales and means of a step's symbols; what its graph gives besides is added to `passed_on`."""
    outputs = hyper_outputs
    if graph != bundle.plan.hyper["graph"]:
        outputs = bundle.run(graph, **passed_on, y_hat=y_hat)
        passed_on |= without_parameters(outputs)
    scales = outputs["scales"].ravel()
    means = outputs["means"].ravel() if "means" in outputs else np.zeros_like(scales)
    if not np.isfinite(means).all():
        raise ValueError("a mean is not finite")
    return scales, means


def without_parameters(outputs: Arrays) -> Arrays:
    return {name: array for name, array in outputs.items() if name not in ("scales", "means")}


def decode_y(file: Container, bundle: Bundle, hyper_outputs: Arrays) -> tuple[list[np.ndarray], np.ndarray]:
    """The symbols of the steps, and y_hat."""
    sections, plan = file.critical(), bundle.plan
    y_hat = np.zeros((1, *plan.shape(plan.latent, file)), np.float32)
    channels = np.broadcast_to(np.arange(y_hat.shape[1])[:, None, None], y_hat.shape[1:])
    streams = split_streams(sections[Y], y_hat.size)
    calibration = Calibration(sections[CALIBRATION], len(plan.steps)) if CALIBRATION in sections else None
    passed_on, symbols, key = without_parameters(hyper_outputs), [], 0
    for index, step in enumerate(plan.steps):
        if plan.hyper is None:
            table, rows = bundle.hyper, joined(step_views(channels, step))
            means = bundle.medians[rows]
        else:
            scales, means = run_step(step.graph, bundle, hyper_outputs, passed_on, y_hat)
            table, rows = bundle.latent, own_rows(scales, bundle.scale_table)
            if calibration:
                rows = calibration.rows(scales, rows, bundle.scale_table, index, key)
        values: list[int] = []
        for j, stream in enumerate(streams):
            part = slice(j * len(rows) // len(streams), (j + 1) * len(rows) // len(streams))
            values += stream.symbols(rows[part].tolist(), table)
        symbols.append(checked(values, sections[CHECKSUMS], index))
        rest = symbols[-1].astype(np.float32) + means
        for view in step_views(y_hat[0], step):
            view[...], rest = rest[: view.size].reshape(view.shape), rest[view.size :]
        key += len(rows)
    for stream in streams:
        stream.finish()
    return symbols, y_hat[0]


def check_plan(file: Container, plan: Plan) -> None:
    """Refuses a file that is not of the plan."""
    if file.version != plan.version:
        raise ValueError(f"a file of version {file.version}, where the plan's have {plan.version}")
    if file.version == 2 and not plan.quality[0] <= file.quality <= plan.quality[1]:
        raise ValueError(f"quality {file.quality}, not within the plan's {plan.quality}")
    sections = file.critical()
    if (Z in sections) != (plan.hyper is not None):
        raise ValueError("a section z without a hyper-latent, or the reverse")
    if len(sections[CHECKSUMS]) != 2 * (1 + len(plan.steps)):
        raise ValueError(
            f"{len(sections[CHECKSUMS])} bytes of checksums, of a plan of {len(plan.steps)} steps"
        )


def decode(data: bytes, bundle: Bundle) -> Decoded:
    """Decodes a file's symbols and latent."""
    container = parse(data)
    if bundle.manifest["fingerprint"][:16] != container.fingerprint:
        raise ValueError("the file needs another bundle: the fingerprints differ")
    if bundle.manifest["codec_id"][:8] != container.codec_id:
        warnings.warn("the file was made with other codec weights", stacklevel=2)
    check_plan(container, bundle.plan)
    z, hyper_outputs = decode_z(container, bundle)
    symbols, y_hat = decode_y(container, bundle, hyper_outputs)
    return Decoded(container, [z, *symbols], y_hat)


def picture(decoded: Decoded, bundle: Bundle) -> np.ndarray:
    """The picture of a decoded file, uint8 [height, width, 3]."""
    file = decoded.container
    quality = np.array([file.quality], np.float32)
    image = bundle.run("synthesis", y_hat=decoded.y_hat[None], quality=quality)["image"][0]
    levels = np.rint(np.clip(image.transpose(1, 2, 0) * 255, 0, 255))
    return levels.astype(np.uint8)[: file.height, : file.width]
