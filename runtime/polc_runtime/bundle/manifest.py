"""The manifest of a bundle: what its files are, parsed from JSON that nobody vouches for."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ..bitstream.calibration import LARGEST_EXPONENT, LEAST_EXPONENT, Tolerances
from ..bitstream.plan import CodingPlan
from ..errors import BundleError, UsageError
from .fields import Axes, Fields, parse_json
from .plan import KEY, parse_plan
from .tasks import Task, parse_tasks

FORMAT_VERSION = (1, 5)
"""(major, minor) of the bundle format this runtime writes; a higher major is refused."""

KNOWN_PRECISIONS = ("fp32", "fp16")
TORCHSCRIPT, TENSORRT, TENSORRT_PLUGIN = "torchscript", "tensorrt", "tensorrt-plugin"
FORMATS = {TORCHSCRIPT: ".ts", TENSORRT: ".trt.onnx", TENSORRT_PLUGIN: ".plugin.onnx"}
"""What a graph may be stored as besides plain ONNX, with the suffix of the files.

TensorRT reads `TENSORRT` as it is. `TENSORRT_PLUGIN` leaves the attention to a plugin; graphs without
attention have none, and what looks for it takes `TENSORRT`.
"""
_VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
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
        name: analysis, hyper_analysis, synthesis, task_NAME, pixels_NAME, or as the coding plan and the
            variants name it.
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
class Variant:
    """Other image networks that share the bundle's entropy path, and so its files.

    Attributes:
        name: what users call it.
        analysis: name of its graph from images to latents.
        synthesis: name of its graph from latents to images.
        codec_id: 32 bytes over all weights of the codec that it makes.
    """

    name: str
    analysis: str
    synthesis: str
    codec_id: bytes

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {**vars(self), "codec_id": self.codec_id.hex()}


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        name: of the model, for people.
        model: what the checkpoint says of its dimensions, for people.
        plan: how the codec's images become symbols.
        tolerances: that files are calibrated for.
        fingerprint: 32 bytes over everything that decoding depends on.
        codec_id: 32 bytes over all weights of the codec.
        tasks: what the bundle predicts.
        graphs: in the order they run; one name may stand in several precisions.
        entropy_file: path of the entropy tables inside the bundle.
        entropy_sha256: of that file.
        validation: checks made at export, each with its measured error and bound.
        tools: versions of what made the bundle.
        notes: remarks for people, such as that weights are untrained.
        variants: other image networks for the same files.
    """

    name: str
    model: dict[str, Any]
    plan: CodingPlan
    tolerances: Tolerances
    fingerprint: bytes
    codec_id: bytes
    graphs: tuple[GraphFile, ...]
    entropy_file: str
    entropy_sha256: str
    tasks: tuple[Task, ...] = ()
    validation: tuple[dict[str, Any], ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()

    @property
    def quality_range(self) -> tuple[float, float]:
        """Smallest and largest quality."""
        return self.plan.quality.min, self.plan.quality.max

    def to_json(self) -> str:
        """The manifest's text."""
        document = {
            "format": list(FORMAT_VERSION),
            "name": self.name,
            "model": self.model,
            "fingerprint": self.fingerprint.hex(),
            "codec_id": self.codec_id.hex(),
            "quality_range": list(self.quality_range),
            "size": vars(self.plan.pad),
            KEY: self.plan.to_dict(),
            "tolerances": self.tolerances.to_list(),
            "variants": [variant.to_dict() for variant in self.variants],
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
        entropy = root.section("entropy")
        plan = parse_plan(root)
        size = root.section("size")
        if (found := {name: size.size(name, 4096) for name in vars(plan.pad)}) != vars(plan.pad):
            raise BundleError(
                f"manifest.json: size is {found}, the coding plan has {vars(plan.pad)}: upgrade polc"
            )
        if entropy.get("file", str) != "entropy.npz":
            raise BundleError("manifest.json: entropy.file is not entropy.npz")
        root.get("graphs", list)
        exact = plan.exact_graphs
        graphs = tuple(_graph(fields, exact) for fields in root.sections("graphs"))
        return cls(
            name=root.get("name", str),
            model=root.flat("model"),
            plan=plan,
            tolerances=_tolerances(root, len(plan.steps)),
            fingerprint=root.digest("fingerprint"),
            codec_id=root.digest("codec_id"),
            graphs=graphs,
            entropy_file="entropy.npz",
            entropy_sha256=entropy.digest("sha256").hex(),
            tasks=parse_tasks(root.sections("tasks"), {g.name: g.inputs | g.outputs for g in graphs}),
            validation=root.flats("validation"),
            tools=root.flat("tools", {}),
            notes=tuple(str(note) for note in root.get("notes", list, [])),
            variants=_variants(root),
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
        raise BundleError(f"the bundle holds no graph {name!r}{self._made_for}; it has {names}")

    @property
    def _made_for(self) -> str:
        """What a bundle without all image networks was exported for, as part of a message."""
        encodes, decodes = self.has_graph("analysis"), self.has_graph("synthesis")
        if encodes and decodes:
            return ""
        use = "decoding" if decodes else "encoding" if encodes else "tasks"
        return f": it was exported for {use} alone"

    def variant(self, name: str | None) -> Variant:
        """A variant by name; the bundle's own image networks for None.

        Raises:
            UsageError: the bundle does not hold it; the message lists what there is.
        """
        own = Variant(self.name, "analysis", "synthesis", self.codec_id)
        if name is None:
            return own
        for variant in self.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.variants)
        there = f"it has {names}" if names else "it has none but its own"
        raise UsageError(f"the bundle {self.name} has no variant {name!r}; {there}")

    def variant_of(self, codec_id: bytes) -> Variant | None:
        """The variant whose `codec_id` begins with these bytes; None where the bundle has none."""
        known = (self.variant(None), *self.variants)
        return next((each for each in known if each.codec_id.startswith(codec_id)), None)

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


def _variants(root: Fields) -> tuple[Variant, ...]:
    variants = tuple(
        Variant(
            name=fields.get("name", str),
            analysis=fields.get("analysis", str),
            synthesis=fields.get("synthesis", str),
            codec_id=fields.digest("codec_id"),
        )
        for fields in root.sections("variants")
    )
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names) or not all(_VARIANT.fullmatch(name) for name in names):
        raise root.wrong("variants", "not a list of variants with a usable name each")
    return variants


def _tolerances(root: Fields, steps: int) -> Tolerances:
    """The tolerances of so many steps, or the default ones of a bundle that has none."""
    rows = tuple(
        (
            fields.number("quality"),
            tuple(fields.sizes("exponents", steps, LARGEST_EXPONENT, LEAST_EXPONENT)),
        )
        for fields in root.sections("tolerances")
    )
    qualities = [quality for quality, _ in rows]
    if qualities != sorted(set(qualities)):
        raise root.wrong("tolerances", "not in order of quality")
    return Tolerances(rows) if rows else Tolerances.default(steps)


def _graph(fields: Fields, exact: frozenset[str]) -> GraphFile:
    file = _file_name(fields, ".onnx")
    fields = Fields(fields.value, f"manifest.json: {file}")
    name = fields.get("name", str)
    return GraphFile(
        name=name,
        file=file,
        sha256=fields.digest("sha256").hex(),
        precision=fields.choice("precision", KNOWN_PRECISIONS),
        opset=fields.get("opset", int),
        inputs=fields.axes("inputs"),
        outputs=fields.axes("outputs"),
        exact=name in exact,
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
