"""The manifest of a bundle: what its files are, parsed from JSON that nobody vouches for."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bitstream.calibration import DEFAULT_TOLERANCES, LARGEST_EXPONENT, LEAST_EXPONENT, Tolerances
from ..bitstream.geometry import PAD_LEAST, PAD_MULTIPLE
from ..bitstream.schedule import STEP_COUNT
from ..errors import BundleError, UsageError
from .fields import Axes, Fields, is_size, parse_json
from .tasks import Task, parse_tasks

FORMAT_VERSION = (1, 4)
"""(major, minor) of the bundle format this runtime writes; a higher major is refused."""

KNOWN_PRECISIONS = ("fp32", "fp16")
SIZE = {"multiple": PAD_MULTIPLE, "min": PAD_LEAST}
"""How images are padded: the bitstream's rule, repeated for readers that have only the files."""
TORCHSCRIPT, TENSORRT, TENSORRT_PLUGIN = "torchscript", "tensorrt", "tensorrt-plugin"
FORMATS = {TORCHSCRIPT: ".ts", TENSORRT: ".trt.onnx", TENSORRT_PLUGIN: ".plugin.onnx"}
"""What a graph may be stored as besides plain ONNX, with the suffix of the files.

TensorRT reads `TENSORRT` as it is. `TENSORRT_PLUGIN` leaves the attention to a plugin; graphs without
attention have none, and what looks for it takes `TENSORRT`.
"""
_FILE = re.compile(r"graphs/[A-Za-z0-9_-]+(\.fp16)?((?:\.[a-z]+){1,2})")


@dataclass(frozen=True)
class StoredFile:
    """A file inside the bundle.

    Attributes:
        file: its path, with forward slashes.
        sha256: of its bytes, hexadecimal.
    """

    file: str
    sha256: str


@dataclass(frozen=True)
class GraphFile:
    """One graph of a bundle.

    Attributes:
        name: analysis, hyper_analysis, hyper_synthesis, context_0..8, synthesis, task_NAME, pixels_NAME.
        file: path inside the bundle, with forward slashes.
        sha256: of the file, hexadecimal.
        precision: fp32 or fp16 (inside; inputs and outputs are float32 either way).
        opset: ONNX opset of the default domain.
        inputs: axes of each input, in order; text is a size, as "batch", "64*h" or "64*h+1".
        outputs: likewise.
        exact: whether encoder and decoder must agree on it.
        parameters: number of weights inside.
        formats: the same graph in other formats than plain ONNX, by name of the format.
    """

    name: str
    file: str
    sha256: str
    precision: str
    opset: int
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]
    exact: bool
    parameters: int
    formats: dict[str, StoredFile] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "name": self.name,
            "file": self.file,
            "sha256": self.sha256,
            "precision": self.precision,
            "opset": self.opset,
            "inputs": {name: list(axes) for name, axes in self.inputs.items()},
            "outputs": {name: list(axes) for name, axes in self.outputs.items()},
            "exact": self.exact,
            "parameters": self.parameters,
            **({"formats": {k: asdict(v) for k, v in self.formats.items()}} if self.formats else {}),
        }

    def files(self) -> tuple[StoredFile, ...]:
        """Its files, in every format."""
        return StoredFile(self.file, self.sha256), *self.formats.values()


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        name: of the model, for people.
        model: dimensions, as the checkpoint stores them.
        fingerprint: 32 bytes over everything that decoding depends on.
        codec_id: 32 bytes over all weights of the codec.
        quality_range: least and largest quality.
        tasks: what the bundle predicts.
        graphs: in the order they run; one name may stand in several precisions.
        entropy_file: path of the entropy tables inside the bundle.
        entropy_sha256: of that file.
        validation: checks made at export, each with its measured error and bound.
        tools: versions of what made the bundle.
        notes: remarks for people, such as that weights are untrained.
        tolerances: that files are calibrated for.
    """

    name: str
    model: dict[str, Any]
    fingerprint: bytes
    codec_id: bytes
    quality_range: tuple[float, float]
    graphs: tuple[GraphFile, ...]
    entropy_file: str
    entropy_sha256: str
    tasks: tuple[Task, ...] = ()
    validation: tuple[dict[str, Any], ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tolerances: Tolerances = DEFAULT_TOLERANCES

    @property
    def latent_channels(self) -> int:
        """M, channels of the latent."""
        return int(self.model["dims"][-1])

    @property
    def hyper_channels(self) -> int:
        """N', channels of the hyper-latent."""
        return int(self.model["hyper_dim"])

    def to_json(self) -> str:
        """The manifest's text."""
        document = {
            "format": list(FORMAT_VERSION),
            "name": self.name,
            "model": self.model,
            "fingerprint": self.fingerprint.hex(),
            "codec_id": self.codec_id.hex(),
            "quality_range": list(self.quality_range),
            "size": SIZE,
            "tolerances": self.tolerances.to_list(),
            "graphs": [graph.to_dict() for graph in self.graphs],
            "entropy": {"file": self.entropy_file, "sha256": self.entropy_sha256},
            "tasks": [task.to_dict() for task in self.tasks],
            "validation": list(self.validation),
            "tools": self.tools,
            "notes": list(self.notes),
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parses a manifest; unknown keys are ignored.

        Raises:
            BundleError: it is not JSON, is of a newer major version, or a field is missing or wrong.
        """
        try:
            document = parse_json(text)
        except ValueError as error:
            raise BundleError(f"manifest.json is not JSON: {error}") from None
        root = Fields(document, "manifest.json")
        version = root.get("format", list)
        if not version or not isinstance(version[0], int) or isinstance(version[0], bool):
            raise BundleError("manifest.json: format is not a version")
        if version[0] > FORMAT_VERSION[0]:
            raise BundleError(
                f"the bundle has format {version[0]}, this runtime reads up to {FORMAT_VERSION[0]}: "
                "upgrade polc"
            )
        return cls._parse(root)

    @classmethod
    def _parse(cls, root: Fields) -> Manifest:
        size = root.section("size")
        entropy = root.section("entropy")
        low, high = root.numbers("quality_range", 2)
        model = root.flat("model")
        dims = model.get("dims")
        if not (isinstance(dims, list) and dims and all(is_size(d) for d in dims)):
            raise BundleError("manifest.json: model.dims is not a list of widths")
        if not is_size(model.get("hyper_dim")):
            raise BundleError("manifest.json: model.hyper_dim is not a width")
        if not (1 <= low < high <= 8):
            raise BundleError(f"manifest.json: quality_range {low}..{high} is not a range within 1..8")
        if (found := {name: size.size(name, 4096) for name in SIZE}) != SIZE:
            raise BundleError(f"manifest.json: size is {found}; the bitstream has {SIZE}: upgrade polc")
        if entropy.get("file", str) != "entropy.npz":
            raise BundleError("manifest.json: entropy.file is not entropy.npz")
        root.get("graphs", list)
        graphs = tuple(_graph(fields) for fields in root.sections("graphs"))
        return cls(
            name=root.get("name", str),
            model=model,
            fingerprint=root.digest("fingerprint"),
            codec_id=root.digest("codec_id"),
            quality_range=(low, high),
            graphs=graphs,
            entropy_file="entropy.npz",
            entropy_sha256=entropy.digest("sha256").hex(),
            tasks=parse_tasks(root.sections("tasks"), {g.name: g.inputs | g.outputs for g in graphs}),
            validation=root.flats("validation"),
            tools=root.flat("tools", {}),
            notes=tuple(str(note) for note in root.get("notes", list, [])),
            tolerances=_tolerances(root),
        )

    def has_graph(self, name: str, precision: str = "fp32") -> bool:
        """Whether `graph` finds such a graph: one that a bundle need not hold, as hyper_analysis."""
        return any(g.name == name and (g.exact or g.precision == precision) for g in self.graphs)

    def graph(self, name: str, precision: str = "fp32") -> GraphFile:
        """A graph by name and precision; exact graphs are fp32 whatever is asked for.

        Raises:
            BundleError: the bundle does not hold it; the message lists what there is.
        """
        found = [g for g in self.graphs if g.name == name]
        for graph in found:
            if graph.exact or graph.precision == precision:
                return graph
        if found:
            there = ", ".join(g.precision for g in found)
            raise BundleError(f"{name} is there in {there}, not in {precision}; export it in {precision}")
        names = ", ".join(dict.fromkeys(g.name for g in self.graphs))
        raise BundleError(f"the bundle has no graph {name!r}; it has {names}")

    def task(self, name: str) -> Task:
        """A task by name.

        Raises:
            UsageError: the bundle does not hold it; the message lists what there is.
        """
        for task in self.tasks:
            if task.name == name:
                return task
        if not self.tasks:
            raise UsageError(
                f"the bundle {self.name} has no tasks, so none named {name!r}; add one with "
                "polc-export --bundle BUNDLE --stage2 CKPT"
            )
        names = ", ".join(task.name for task in self.tasks)
        raise UsageError(f"the bundle {self.name} has no task {name!r}; it has {names}")


def _tolerances(root: Fields) -> Tolerances:
    """The tolerances, or the default ones of a bundle that has none."""
    rows = tuple(
        (
            fields.number("quality"),
            tuple(fields.sizes("exponents", STEP_COUNT, LARGEST_EXPONENT, LEAST_EXPONENT)),
        )
        for fields in root.sections("tolerances")
    )
    qualities = [quality for quality, _ in rows]
    if qualities != sorted(set(qualities)):
        raise root.wrong("tolerances", "not in order of quality")
    return Tolerances(rows) if rows else DEFAULT_TOLERANCES


def _graph(fields: Fields) -> GraphFile:
    file = _file_name(fields, ".onnx")
    fields = Fields(fields.value, f"manifest.json: {file}")
    return GraphFile(
        name=fields.get("name", str),
        file=file,
        sha256=fields.digest("sha256").hex(),
        precision=fields.choice("precision", KNOWN_PRECISIONS),
        opset=fields.get("opset", int),
        inputs=fields.axes("inputs"),
        outputs=fields.axes("outputs"),
        exact=fields.get("exact", bool),
        parameters=fields.get("parameters", int, 0),
        formats=_formats(Fields(fields.get("formats", dict, {}), f"{fields.where}: formats")),
    )


def _formats(fields: Fields) -> dict[str, StoredFile]:
    """The formats that this runtime knows; others are ignored."""
    entries = {name: fields.section(name) for name in FORMATS if name in fields.value}
    return {
        name: StoredFile(_file_name(entry, FORMATS[name]), entry.digest("sha256").hex())
        for name, entry in entries.items()
    }


def _file_name(fields: Fields, suffix: str) -> str:
    file: str = fields.get("file", str)
    match = _FILE.fullmatch(file)
    if match is None or match[2] != suffix:
        raise BundleError(f"manifest.json: {file!r} is no file name of a graph, graphs/NAME{suffix}")
    return file
