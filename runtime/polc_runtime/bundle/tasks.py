"""Task entries of the manifest: what a vision model predicts, from which latents, of which images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BundleError
from ..limits import MAX_CLASSES, MAX_EXTRA, MAX_NAME
from .fields import Axes, Fields, is_size

CLASSIFICATION, SEGMENTATION = KINDS = ("classification", "segmentation")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's resampling filters by name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class SizeRule:
    """Which latents a task graph takes, in latent rows and columns; both vary unless `fixed`.

    Attributes:
        multiple: height and width are multiples of it.
        minimum: smallest height and width.
        fixed: the only (height, width), or None.
        extra: rows and columns that a segmentation's logits have beyond the padded image's.
    """

    multiple: int = 4
    minimum: int = 4
    fixed: tuple[int, int] | None = None
    extra: int = 0

    def admits(self, h: int, w: int) -> bool:
        """Whether a latent of `h` rows and `w` columns fits."""
        if self.fixed is not None:
            return (h, w) == self.fixed
        return min(h, w) >= self.minimum and h % self.multiple == w % self.multiple == 0

    def wanted(self, stride: int) -> str:
        """The images that fit, in words; `stride` is of the latent, in pixels."""
        if self.fixed is not None:
            height, width = (stride * side for side in self.fixed)
            return f"of {width}x{height} pixels"
        multiple, least = stride * self.multiple, stride * self.minimum
        return f"of at least {least}x{least} pixels, padded to multiples of {multiple}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {**asdict(self), "fixed": None if self.fixed is None else list(self.fixed)}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before it is coded, so that accuracies compare; and to pixels by the baseline.

    Attributes:
        resize: length that the shorter side is scaled to, or None.
        crop: side of the square cut from the centre afterwards, or None.
        interpolation: of the resizing, one of `INTERPOLATIONS`.
        mean: subtracted from each channel of an image in 0..1 before the pixel model.
        std: divides it afterwards.
    """

    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True)
class Task:
    """One task of a bundle.

    Attributes:
        name: what users call it.
        family: of the vision model, for people.
        kind: classification or segmentation.
        classes: their names, in the order of the logits.
        sizes: which latents it takes.
        preprocessing: of images, before they are coded.
        pixels: whether the bundle holds the graph that predicts from pixels too.
    """

    name: str
    family: str
    kind: str
    classes: tuple[str, ...]
    sizes: SizeRule = SizeRule()
    preprocessing: Preprocessing = Preprocessing()
    pixels: bool = False

    @property
    def graph(self) -> str:
        """Name of the graph that predicts from latents."""
        return f"task_{self.name}"

    @property
    def pixels_graph(self) -> str | None:
        """Name of the graph that predicts from normalised pixels; None where the bundle has none."""
        return f"pixels_{self.name}" if self.pixels else None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "name": self.name,
            "family": self.family,
            "kind": self.kind,
            "graph": self.graph,
            "pixels": self.pixels_graph,
            "classes": list(self.classes),
            "sizes": self.sizes.to_dict(),
            "preprocessing": self.preprocessing.to_dict(),
        }

    def interfaces(self) -> dict[str, set[str]]:
        """Names of the inputs and outputs of each graph it needs."""
        graphs = {self.graph: {"y_hat", "quality", "logits"}}
        return graphs if self.pixels_graph is None else graphs | {self.pixels_graph: {"image", "logits"}}


def parse_tasks(entries: list[Fields], graphs: Mapping[str, Mapping[str, Axes]]) -> tuple[Task, ...]:
    """Reads the manifest's list of tasks.

    Args:
        entries: the list.
        graphs: inputs and outputs of the bundle's graphs, by the graphs' names.

    Raises:
        BundleError: a field is missing or wrong, a name is there twice, or a graph is not there.
    """
    tasks: dict[str, Task] = {}
    for entry in entries:
        task = _task(entry)
        if task.name in tasks:
            raise BundleError(f"manifest.json: the task {task.name} is there twice")
        for graph, interface in task.interfaces().items():
            if graphs.get(graph, {}).keys() != interface:
                raise BundleError(
                    f"manifest.json: the task {task.name} needs a graph {graph} with {_listed(interface)}"
                )
        tasks[task.name] = task
    return tuple(tasks.values())


def _task(fields: Fields) -> Task:
    name = fields.get("name", str)
    if not _NAME.fullmatch(name):
        raise fields.wrong("name", "no name for a task")
    fields = Fields(fields.value, f"manifest.json: task {name}")
    fields.choice("graph", (f"task_{name}",))
    pixels = fields.value.get("pixels") is not None
    if pixels:
        fields.choice("pixels", (f"pixels_{name}",))
    return Task(
        name=name,
        family=fields.get("family", str),
        kind=fields.choice("kind", KINDS),
        classes=_classes(fields),
        sizes=_sizes(fields.section("sizes")),
        preprocessing=_preprocessing(fields.section("preprocessing")),
        pixels=pixels,
    )


def _classes(fields: Fields) -> tuple[str, ...]:
    names = fields.get("classes", list)
    if not 1 <= len(names) <= MAX_CLASSES:
        raise fields.wrong("classes", f"a list of {len(names)} names, expected 1 to {MAX_CLASSES}")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in names):
        raise fields.wrong("classes", f"not a list of names, each of 1 to {MAX_NAME} characters")
    return tuple(names)


def _sizes(fields: Fields) -> SizeRule:
    fixed = fields.value.get("fixed")
    if fixed is not None and not (isinstance(fixed, list) and len(fixed) == 2 and all(map(is_size, fixed))):
        raise fields.wrong("fixed", "neither null nor a height and a width")
    return SizeRule(
        multiple=fields.size("multiple"),
        minimum=fields.size("minimum"),
        fixed=None if fixed is None else (fixed[0], fixed[1]),
        extra=fields.size("extra", MAX_EXTRA, least=0),
    )


def _preprocessing(fields: Fields) -> Preprocessing:
    mean, std = fields.numbers("mean", 3), fields.numbers("std", 3)
    if min(std) <= 0:
        raise fields.wrong("std", "not positive")
    return Preprocessing(
        resize=fields.optional_size("resize"),
        crop=fields.optional_size("crop"),
        interpolation=fields.choice("interpolation", INTERPOLATIONS),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))
