"""The cache of TensorRT engines: where they lie, what each says of itself, which may run here.

An engine serves one graph file, one kind of GPU and one version of TensorRT. Beside each lies a JSON file,
its sidecar, that says which; an engine is never opened before its sidecar fits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...bundle.fields import Fields
from ...bundle.manifest import TENSORRT, TENSORRT_PLUGIN
from ...errors import BundleError, PolcError
from ...files.outputs import make_folder, write_file

VARIABLE = "POLC_CACHE"
"""Environment variable that names the folder that holds what polc keeps between runs."""

SIDECAR_FORMAT = 1
ENGINE, SIDECAR, LOG = ".engine", ".json", ".log"
"""Suffixes of the files of one engine."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Target:
    """What an engine runs on.

    Attributes:
        gpu: name of the GPU.
        compute_capability: such as "9.0".
        tensorrt: full version, such as "8.6.0".
    """

    gpu: str
    compute_capability: str
    tensorrt: str

    def __str__(self) -> str:
        return f"{self.gpu} (compute capability {self.compute_capability}) with TensorRT {self.tensorrt}"


@dataclass(frozen=True)
class Range:
    """Shapes that an input may have: from `min` to `max`, fastest at `opt`."""

    min: Shape
    opt: Shape
    max: Shape

    def admits(self, shape: Shape) -> bool:
        """Whether a shape lies within."""
        return len(shape) == len(self.min) and all(
            low <= side <= high for low, side, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        return f"{list(self.min)} to {list(self.max)}"


@dataclass(frozen=True)
class EngineKey:
    """What an engine was, or is to be, built from and for.

    Attributes:
        graph: its name in the bundle.
        graph_sha256: of the ONNX file.
        variant: the ONNX file's format, `TENSORRT` or `TENSORRT_PLUGIN`.
        precision: fp32 or fp16.
        tf32: whether TF32 was allowed.
        ranges: shapes of each input.
        target: what it runs on.
    """

    graph: str
    graph_sha256: str
    variant: str
    precision: str
    tf32: bool
    ranges: dict[str, Range]
    target: Target

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the sidecar."""
        return {
            "graph": self.graph,
            "graph_sha256": self.graph_sha256,
            "variant": self.variant,
            "precision": self.precision,
            "tf32": self.tf32,
            "shapes": {
                name: {"min": list(r.min), "opt": list(r.opt), "max": list(r.max)}
                for name, r in self.ranges.items()
            },
            "gpu": self.target.gpu,
            "compute_capability": self.target.compute_capability,
            "tensorrt": self.target.tensorrt,
        }

    @property
    def digest(self) -> str:
        """Hexadecimal; another one wherever anything of the key differs."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def admits(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether the engine runs on inputs of these shapes."""
        return all(name in shapes and r.admits(shapes[name]) for name, r in self.ranges.items())


@dataclass(frozen=True)
class Engine:
    """An engine in the cache.

    Attributes:
        path: of the engine; the sidecar lies beside it.
        key: what it was built from and for.
        sha256: of the engine's bytes.
        layers: what was read back of the precision of its layers.
    """

    path: Path
    key: EngineKey
    sha256: str
    layers: dict[str, Any] = field(default_factory=dict)

    def read(self) -> bytes:
        """The engine, checked against its sidecar.

        Raises:
            PolcError: it cannot be read, or is not the one that the sidecar was written for.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise PolcError(f"{self.path} cannot be read ({error.strerror}): build it again") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PolcError(
                f"{self.path} is damaged or replaced (its hash is not the sidecar's): build it again, "
                "with --rebuild"
            )
        return data


def cache_folder(chosen: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of engines: `chosen`, else that in `$POLC_CACHE`, else the platform's place for caches."""
    if chosen is not None:
        return chosen
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE]) / "engines"
    home = Path(environment.get("HOME") or Path.home())
    if sys.platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or home / "AppData/Local")
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "polc" / "engines"


def engine_path(cache: Path, key: EngineKey) -> Path:
    """Where the engine of a key lies."""
    return cache / key.graph_sha256[:32] / f"{key.graph}.{key.precision}.{key.digest}{ENGINE}"


def store(cache: Path, key: EngineKey, data: bytes, layers: Mapping[str, Any]) -> Engine:
    """Puts an engine into the cache: the engine first, then its sidecar, each whole or not at all.

    Raises:
        PolcError: a file cannot be written.
    """
    path = engine_path(cache, key)
    make_folder(path.parent)
    engine = Engine(path, key, hashlib.sha256(data).hexdigest(), dict(layers))
    facts = {
        "format": SIDECAR_FORMAT,
        **key.to_dict(),
        "engine_sha256": engine.sha256,
        "engine_bytes": len(data),
        "layers": engine.layers,
    }
    path.with_suffix(SIDECAR).unlink(missing_ok=True)
    write_file(path, data, force=True)
    write_file(path.with_suffix(SIDECAR), (json.dumps(facts, indent=1) + "\n").encode(), force=True)
    return engine


def engines_of(cache: Path, graph_sha256: str) -> list[Engine]:
    """Every engine of a graph's file, for whatever GPU; those whose sidecar cannot be read are left out."""
    folder = cache / graph_sha256[:32]
    found = []
    for sidecar in sorted(folder.glob(f"*{SIDECAR}")):
        try:
            engine = parse_sidecar(sidecar.read_text("utf-8"), sidecar.with_suffix(ENGINE))
        except (OSError, UnicodeDecodeError, BundleError):
            continue
        if engine.key.graph_sha256 == graph_sha256 and engine.path.is_file():
            found.append(engine)
    return found


def parse_sidecar(text: str, path: Path) -> Engine:
    """What a sidecar says of the engine at `path`.

    Raises:
        BundleError: it is not a sidecar, or of another format.
    """
    where = path.with_suffix(SIDECAR).name
    try:
        fields = Fields(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON: {error}") from None
    if fields.get("format", int) != SIDECAR_FORMAT:
        raise fields.wrong("format", f"{fields.get('format', int)}, expected {SIDECAR_FORMAT}")
    shapes = fields.section("shapes")
    key = EngineKey(
        graph=fields.get("graph", str),
        graph_sha256=fields.digest("graph_sha256").hex(),
        variant=fields.choice("variant", (TENSORRT, TENSORRT_PLUGIN)),
        precision=fields.choice("precision", ("fp32", "fp16")),
        tf32=fields.get("tf32", bool),
        ranges={name: _range(shapes.section(name)) for name in shapes.value},
        target=Target(*(fields.get(name, str) for name in ("gpu", "compute_capability", "tensorrt"))),
    )
    return Engine(path, key, fields.digest("engine_sha256").hex(), fields.get("layers", dict, {}))


def _range(fields: Fields) -> Range:
    found = Range(*(tuple(fields.get(name, list)) for name in ("min", "opt", "max")))
    sides = (*found.min, *found.opt, *found.max)
    if not len(found.min) == len(found.opt) == len(found.max) or not all(isinstance(n, int) for n in sides):
        raise BundleError(f"{fields.where} is not a range of shapes")
    return found


def refusal(engines: Sequence[Engine], target: Target) -> str:
    """Why none of some engines runs on a target: what they are for, in one line."""
    for name, what in (
        ("tensorrt", "TensorRT"),
        ("compute_capability", "compute capability"),
        ("gpu", "GPU"),
    ):
        there = sorted({str(getattr(engine.key.target, name)) for engine in engines})
        here = getattr(target, name)
        if here not in there:
            return f"the engines there are for {what} {', '.join(there)}, this is {what} {here}"
    others = sorted({str(engine.key.target) for engine in engines})
    return f"the engines there are for {'; '.join(others)}, this is {target}"


def preferred(engines: Sequence[Engine], with_plugin: bool) -> list[Engine]:
    """Engines in the order to try them in: with the plugin, without TF32, for small images first."""
    usable = (engine for engine in engines if with_plugin or engine.key.variant != TENSORRT_PLUGIN)
    return sorted(usable, key=lambda engine: (_rank(engine.key), engine.key.digest))


def _rank(key: EngineKey) -> tuple[bool, bool, int]:
    return key.variant != TENSORRT_PLUGIN, key.tf32, sum(math.prod(r.max) for r in key.ranges.values())
