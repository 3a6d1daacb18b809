"""Adds golden files and values to this folder: python tests/format/make_golden.py

What is there is never made again: a golden file stands for all files that were written in its version.
Decoders are held to it, not it to them. Run this after adding a case below, such as those of a new version.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plain_decoder
import plain_encoder
from golden_format import (
    BUNDLE,
    BUNDLES,
    FOLDER,
    RECORD,
    describe,
    load_record,
    plain_bundle,
    polc_symbols,
    symbol_hash,
)
from plain_plan import joined, nine_steps, step_views

from polc_runtime import Codec
from polc_runtime.bitstream.calibration import CalibrationWriter, Decisions, Edges, Tolerances
from polc_runtime.bitstream.container import Container
from polc_runtime.bitstream.retrieval import build

Picture = np.ndarray
ROBUST = 11
"""Exponent of the golden files: wider than by default, so that they decode on machines yet unknown too."""


def drawn(
    height: int,
    width: int,
    seed: int = 0,
    details: float = 1.0,
    flat: tuple[int, int, int] = (120, 150, 170),
) -> Picture:
    """A picture with gradients, strokes as of text, and noise, in the left `details` of its width."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([200 * x + 40, 180 - 120 * y, 90 + 80 * np.sin(4 * x + 3 * y)], -1)
    image[:, round(width * details) :] = flat
    for _ in range(round(height * width * details / 500)):
        top, left = random.integers(0, height), random.integers(0, round(width * details))
        tall, wide = random.choice([(9, 2), (2, 7), (3, 3)])
        image[top : top + tall, left : left + wide] = random.choice([15, 60, 240])
    part = image[height // 2 :, : round(width * details) // 3]
    part += random.normal(0, 18, part.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def one_pixel(*colour: int) -> Picture:
    return np.array([[colour]], np.uint8)


@dataclass(frozen=True)
class Case:
    """How a golden file is made; `exponents` are those of its steps, one for them all, or None for none."""

    picture: Callable[[], Picture]
    quality: float
    exponents: tuple[int, ...] | int | None = ROBUST
    change: Callable[[bytes, Codec], bytes] = lambda data, codec: data
    bundle: str = BUNDLE


# No scale of this pixel's file lies nearer to an entry than 1.2e-4 of it, so that it needs no calibration.
CLEAR_OF_ENTRIES = (one_pixel(216, 200, 85), 2.0)


def with_ancillary(data: bytes, codec: Codec) -> bytes:
    """The file with sections to be skipped in all places, an empty one, and one of two bytes' length."""
    found = plain_decoder.parse(data).sections
    extra = [(128, b""), (200, b"one"), (255, bytes(200)), (200, b"two")]
    mixed = [extra[0], found[0], extra[1], found[1], *found[2:], extra[2], extra[3]]
    return plain_encoder.join(data[:27], mixed)


def with_escapes(data: bytes, codec: Codec) -> bytes:
    """The file of the same image with spikes in its latents, which escape the tables to both sides."""
    header = Container.unpack(data).header
    decoded = plain_decoder.decode(data, plain_bundle(codec))
    medians = codec.bundle.entropy_tables().medians[:, None, None]
    y, z = (
        decoded.y_hat.copy(),
        decoded.symbols[0].reshape(-1, *codec.plan.hyper_size(header.height, header.width)) + medians,
    )
    for latent, count in ((y, 60), (z, 12)):
        spikes = np.geomspace(4, 4000, count) * (-1) ** np.arange(count)
        latent.flat[np.arange(count) * 7919 % latent.size] += np.rint(spikes)
    coded = codec.latent_coder.encode(y, z.astype(np.float32), header.quality)
    return coded.container(header).pack()


GREY = (128, 128, 128)
PLAN_FILES = {
    "mean-scale": {
        "1x1": Case(lambda: one_pixel(30, 90, 200), 3.0),
        "odd": Case(lambda: drawn(67, 131, seed=3), 3.0),
        # No scale of this one lies nearer to an entry than a hundredth of it.
        "no-calibration": Case(lambda: drawn(60, 50, seed=256), 3.0, None),
        "escapes": Case(lambda: drawn(60, 70, seed=5), 3.0, change=with_escapes),
    },
    "checkerboard": {
        "1x1": Case(lambda: one_pixel(200, 90, 30), 1.0),
        "odd": Case(lambda: drawn(129, 51, seed=6), 12.0, (9, 10, 11, 12, 13)),
        "ancillary": Case(lambda: drawn(40, 101, seed=7), 4.25, change=with_ancillary),
        "streams": Case(lambda: drawn(1200, 1153, details=0.02, flat=GREY), 1.0),
    },
    "factorised": {
        "1x1": Case(lambda: one_pixel(90, 30, 200), 4.0, None),
        "odd": Case(lambda: drawn(37, 85, seed=8), 2.5),
        "ancillary": Case(lambda: drawn(50, 49, seed=9), 0.5, change=with_ancillary),
        "streams": Case(lambda: drawn(1024, 2048, details=0.01, flat=GREY), 0.5),
    },
}
"""Of version 2, by bundle."""

FILES = {
    "nano-q1": Case(lambda: drawn(256, 192), 1.0),
    "nano-q4.5": Case(lambda: drawn(150, 211), 4.5, (9, 10, 11, 12, 13, 12, 11, 10, 11)),
    "nano-q8": Case(lambda: drawn(100, 193), 8.0),
    "nano-1x1": Case(lambda: one_pixel(30, 90, 200), 4.0),
    "nano-no-calibration": Case(lambda: CLEAR_OF_ENTRIES[0], CLEAR_OF_ENTRIES[1], None),
    "nano-empty-solution": Case(lambda: CLEAR_OF_ENTRIES[0], CLEAR_OF_ENTRIES[1], 15),
    "nano-ancillary": Case(lambda: drawn(70, 40, seed=1), 3.0, change=with_ancillary),
    "nano-escapes": Case(lambda: drawn(40, 70, seed=2), 5.0, change=with_escapes),
    "nano-streams": Case(lambda: drawn(512, 768, details=0.12), 1.5),
    **{
        f"{bundle}-{name}": replace(case, bundle=bundle)
        for bundle, cases in PLAN_FILES.items()
        for name, case in cases.items()
    },
}


def make_file(case: Case, codec: Codec) -> bytes:
    """A golden file's bytes."""
    if case.exponents:
        steps = len(codec.plan.steps)
        exponents = (case.exponents,) * steps if isinstance(case.exponents, int) else case.exponents
        codec.latent_coder.tolerances = Tolerances(((1.0, exponents),))
    data = codec.compress(case.picture(), case.quality, portable=case.exponents is not None)
    return case.change(data, codec)


def order() -> list[dict[str, Any]]:
    """Which places of a latent the steps write: of latents whose values are their own positions."""
    cases = []
    for channels, rows, columns in ((4, 12, 12), (13, 12, 16), (14, 16, 12), (160, 12, 12), (320, 12, 12)):
        latent = np.arange(channels * rows * columns).reshape(channels, rows, columns)
        hashes = [symbol_hash(joined(step_views(latent, step))) for step in nine_steps(channels)]
        cases.append({"channels": channels, "rows": rows, "columns": columns, "steps": hashes})
    return cases


TABLE = [[0, 16384, 32768, 65536], [0, 65536], [0, 1, 65534, 65535, 65536], [0, 60000, 65000, 65500, 65536]]
OFFSETS = [-1, 0, -7, 1000]


def streams() -> dict[str, Any]:
    """Streams of one table: the document's example, escapes of every length, and a mixture."""
    random = np.random.default_rng(3)
    wide = [sign * (16**digits + change) for digits in range(8) for change in (-1, 0) for sign in (-1, 1)]
    escapes = [-(2**31), 2**31 - 1, *wide]
    rows = random.integers(0, 4, 400)
    near = random.integers(-1, 5, 400)
    mixed = [OFFSETS[row] + int(value) for row, value in zip(rows, near, strict=True)]
    cases: dict[str, tuple[list[int], list[int], int]] = {
        "none": ([], [], 0),
        "example": ([0, -1, 0, 7, -40, 1048576, 0, -1] * 2, [0] * 16, 0),
        "escapes": (escapes, [1] * len(escapes), 0),
        "mixed": (mixed, rows.tolist(), 0),
        "digits-not-needed": ([7, -40, 1048576, 1], [0, 1, 2, 3], 2),
    }
    found = {
        name: {
            "symbols": symbols,
            "rows": rows,
            "bytes": plain_encoder.encode_symbols(symbols, rows, TABLE, OFFSETS, more).hex(),
            "as_encoded": more == 0,
        }
        for name, (symbols, rows, more) in cases.items()
    }
    return {"table": TABLE, "offsets": OFFSETS, "cases": found}


def several_streams() -> dict[str, Any]:
    """A section y of three streams, over nine steps of odd lengths."""
    random = np.random.default_rng(4)
    steps: list[dict[str, list[int]]] = []
    parts: list[tuple[list[int], list[int]]] = [([], []), ([], []), ([], [])]
    for length in (5, 0, 1, 2, 30, 7, 31, 8, 100):
        rows = random.integers(0, 4, length).tolist()
        near = random.integers(-1, 4, length).tolist()
        symbols = [OFFSETS[row] + value for row, value in zip(rows, near, strict=True)]
        steps.append({"symbols": symbols, "rows": rows})
        for j, part in enumerate(parts):
            part[0].extend(symbols[j * length // 3 : (j + 1) * length // 3])
            part[1].extend(rows[j * length // 3 : (j + 1) * length // 3])
    coded = [plain_encoder.encode_symbols(symbols, rows, TABLE, OFFSETS) for symbols, rows in parts]
    return {"steps": steps, "bytes": plain_encoder.join_streams(coded).hex()}


def lookups() -> list[dict[str, Any]]:
    """Answers of calibrations whose solutions are shorter than, as long as, and longer than the window."""
    random = np.random.default_rng(5)
    cases = []
    for seed, size in ((0, 1), (255, 2), (1, 7), (2, 8), (77, 9), (3, 120)):
        content = bytes([*[0x21] * 4, 0x01, seed]) + random.bytes(size)
        keys = [0, 1, 2, 65535, 2**32, 2**40 + 3, *random.integers(0, 2**26, 30).tolist()]
        calibration = plain_decoder.Calibration(content)
        answers = "".join(str(calibration.lookup(key)) for key in keys)
        cases.append({"content": content.hex(), "keys": keys, "answers": answers})
    return cases


def calibrated_rows() -> dict[str, Any]:
    """A calibration, and the rows it gives scales that lie nearly as far off as its tolerances allow."""
    random = np.random.default_rng(6)
    table = np.geomspace(0.11, 30, 20).astype(np.float32)
    exponents = (6, 7, 9, 11, 13, 15, 17, 19, 21)
    writer, steps, first = CalibrationWriter(exponents, Edges(table)), [], 0
    for step, (exponent, count) in enumerate(zip(exponents, (40, 1, 0, 30, 40, 40, 40, 40, 40), strict=True)):
        near = random.choice(table, count) * (1 + random.uniform(-3, 3, count) * 2.0**-exponent)
        encoders = np.where(random.random(count) < 0.9, near, random.uniform(-1, 40, count)).astype(
            np.float32
        )
        moved = encoders * (1 + 0.9 * random.uniform(-1, 1, count) * 2.0**-exponent)
        rows = np.minimum(np.searchsorted(table, encoders), len(table) - 1).astype(np.int32)
        writer.add(Decisions(step, first, encoders, rows))
        steps.append({"scales": as_written(moved), "rows": rows.tolist()})
        first += count
    content = writer.finish().pack().hex()
    return {"table": as_written(table), "content": content, "steps": steps}


def as_written(values: np.ndarray) -> list[float]:
    """The shortest decimal fractions that give these float32 again."""
    return [float(str(value)) for value in values.astype(np.float32)]


def retrieval() -> dict[str, Any]:
    """What polc builds for given keys and bits: its own choice, but none to change unnoticed."""
    random = np.random.default_rng(7)
    keys, bits = np.unique(random.integers(0, 10**6, 150)), random.integers(0, 2, 150)
    bits = bits[: len(keys)]
    seed, solution = build(keys, bits)
    return {"keys": keys.tolist(), "bits": bits.tolist(), "seed": seed, "solution": solution.hex()}


VALUES = {
    "order": order,
    "streams": streams,
    "several_streams": several_streams,
    "lookups": lookups,
    "calibrated_rows": calibrated_rows,
    "retrieval": retrieval,
}


def add_file(name: str, case: Case) -> dict[str, Any]:
    """Writes a golden file, if polc and the plain decoder agree on it; returns its entry."""
    with Codec.load(BUNDLES[case.bundle], threads=1) as codec:
        data = make_file(case, codec)
        symbols, _ = polc_symbols(codec, data)
        bundle = plain_bundle(codec)
    decoded = plain_decoder.decode(data, bundle)
    if not all(np.array_equal(a, b) for a, b in zip(symbols, decoded.symbols, strict=True)):
        raise SystemExit(f"{name}: polc and the plain decoder differ")
    with (FOLDER / f"{name}.polc").open("xb") as file:
        file.write(data)
    return describe(case.bundle, data, decoded, plain_decoder.picture(decoded, bundle))


def write_record(record: dict[str, Any]) -> None:
    """Writes golden.json, an entry a line."""
    files = ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in record["files"].items())
    values = [f' "{name}": {json.dumps(entry)}' for name, entry in record.items() if name != "files"]
    RECORD.write_text(
        "{\n" + ",\n".join([' "files": {\n' + files + "\n }", *values]) + "\n}\n", encoding="utf-8"
    )


def main() -> None:
    """Makes the files and values that are not there yet."""
    record = load_record() if RECORD.exists() else {"files": {}}
    for name, case in FILES.items():
        if name not in record["files"]:
            record["files"][name] = add_file(name, case)
            print(f"{name}.polc: {(FOLDER / f'{name}.polc').stat().st_size} bytes")
    for name, make in VALUES.items():
        if name not in record:
            record[name] = make()
            print(f"golden.json: {name}")
    write_record(record)


if __name__ == "__main__":
    main()
