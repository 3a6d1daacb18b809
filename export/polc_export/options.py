"""What an export is asked for: options as data, which neither need torch nor onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage2:
    """A stage-2 checkpoint to export.

    Attributes:
        path: of the file, in either layout.
        name: of its task; None for the names that the checkpoint gives, which may be several.
    """

    path: Path
    name: str | None = None


@dataclass(frozen=True)
class VariantSource:
    """A checkpoint whose image networks are added to a bundle of the same entropy path.

    Attributes:
        name: of the variant.
        path: of the file.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class TaskOptions:
    """How tasks are exported.

    Attributes:
        family: of the vision model in an official checkpoint; None to tell it by its weights.
        labels: files of class names, one a line, by the task's name; under None, of the only task. A task
            without one keeps the names that its checkpoint gives.
        with_pixels: whether the graphs that predict from pixels are exported too.
    """

    family: str | None = None
    labels: Mapping[str | None, Path] = field(default_factory=dict)
    with_pixels: bool = False


@dataclass(frozen=True)
class Formats:
    """What a bundle is to hold besides float32 ONNX, derived from its ONNX files alone.

    Attributes:
        half: every graph that need not be exact in float16 too, `graphs/NAME.fp16.onnx`.
        tensorrt: every graph, in each precision that it is there in, as TensorRT's parser reads it.
    """

    half: bool = False
    tensorrt: bool = False

    def __bool__(self) -> bool:
        return self.half or self.tensorrt


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: of the default ONNX domain; None for the default one.
        validate: whether to compare the bundle with PyTorch, and derived files with those they come from.
        photo: image to validate on; None for the one that matplotlib carries.
        name: of the model; None for the checkpoint's file name, or the name of the bundle that is added to.
        force: whether an existing bundle is replaced.
        quality: which quality of its ladder a checkpoint of one rate is, 1 to 8; None for 4.
        tasks: how tasks are exported.
        torchscript: whether every graph is traced for TorchScript too.
        formats: what to derive from the ONNX files.
        subset: what the bundle is to hold graphs for, `decode`, `encode` or names of tasks; empty for all.
    """

    opset: int | None = None
    validate: bool = True
    photo: Path | None = None
    name: str | None = None
    force: bool = False
    quality: float | None = None
    tasks: TaskOptions = TaskOptions()
    torchscript: bool = False
    formats: Formats = Formats()
    subset: tuple[str, ...] = ()
