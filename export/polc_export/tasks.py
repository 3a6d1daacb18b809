"""Tasks on their way into a bundle: which checkpoint, under which name, with which class names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polc import Checkpoint, CodecModel, TaskModel, class_names, codec_id, load_checkpoint
from polc.graphs import GraphSpec
from polc.tasks.graphs import task_graphs
from polc_runtime.bundle import Task
from polc_runtime.bundle.tasks import MAX_NAME
from polc_runtime.errors import CheckpointError, UsageError
from polc_runtime.files.inputs import explain

from .options import Stage2, TaskOptions


@dataclass(frozen=True)
class TaskExport:
    """A task to export: its entry in the manifest and its model."""

    entry: Task
    model: TaskModel

    def specs(self) -> dict[str, GraphSpec]:
        """The graphs to export, by name."""
        graphs = task_graphs(self.entry.name, self.model)
        return {name: graphs[name] for name in self.entry.interfaces()}


def load_stage2(sources: Sequence[Stage2], options: TaskOptions) -> list[Checkpoint]:
    """The checkpoints, each with the tasks it adds under the names they are to have.

    Raises:
        CheckpointError: a checkpoint is not usable, or holds no task.
        UsageError: a name for a checkpoint of several tasks.
    """
    if options.family is not None and len(sources) > 1:
        raise UsageError("a family is of one stage-2 checkpoint; add the others to the bundle afterwards")
    return [_load(source, options.family) for source in sources]


def task_exports(
    checkpoints: Sequence[Checkpoint], identity: bytes, taken: Sequence[str], options: TaskOptions
) -> list[TaskExport]:
    """What to add to a bundle.

    Args:
        checkpoints: what `load_stage2` gave.
        identity: `codec_id` of the bundle's codec.
        taken: names of the tasks that the bundle has.
        options: how to export.

    Raises:
        CheckpointError: a backbone is another codec than the bundle's, or a task's name is there twice.
        UsageError: the labels do not fit the tasks.
    """
    named: dict[str, TaskModel] = {}
    stored: dict[str, tuple[str, ...]] = {}
    for checkpoint in checkpoints:
        _check_backbone(checkpoint.codec, identity, checkpoint.path)
        for name, model in checkpoint.tasks.items():
            if name in named or name in taken:
                raise CheckpointError(
                    f"{checkpoint.path}: a task named {name} is there already; give this one another name: "
                    f"NAME={checkpoint.path}"
                )
            named[name] = model
        stored |= checkpoint.classes
    labels = stored | dict(_labels(options.labels, list(named)))
    return [
        TaskExport(_entry(name, model, labels.get(name), options.with_pixels), model)
        for name, model in named.items()
    ]


def _load(source: Stage2, family: str | None) -> Checkpoint:
    checkpoint = load_checkpoint(source.path, family)
    if not checkpoint.tasks:
        raise CheckpointError(f"{source.path} holds no task: it is not a stage-2 checkpoint")
    if source.name is not None:
        if len(checkpoint.tasks) > 1:
            names = ", ".join(checkpoint.tasks)
            raise UsageError(f"{source.path} holds the tasks {names}; leave out the name {source.name}")
        ((stored, model),) = checkpoint.tasks.items()
        checkpoint.tasks = {source.name: model}
        if stored in checkpoint.classes:
            checkpoint.classes = {source.name: checkpoint.classes[stored]}
    return checkpoint


def _check_backbone(codec: CodecModel, identity: bytes, path: Path | None) -> None:
    if (found := codec_id(codec)) != identity:
        raise CheckpointError(
            f"{path}: its backbone is another codec than the bundle's (codec_id {found.hex()[:8]}, expected "
            f"{identity.hex()[:8]}): the adapter would read latents that it was not trained on"
        )


def _labels(files: Mapping[str | None, Path], names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Class names of each task that has a file of them."""
    for name, path in files.items():
        if name is None and len(names) != 1:
            raise UsageError(f"{path}: there are the tasks {', '.join(names)}; say which: NAME={path}")
        if name is not None and name not in names:
            raise UsageError(f"{path}: no task named {name!r} is exported; there are {', '.join(names)}")
        yield names[0] if name is None else name, _read_labels(path)


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").rstrip().splitlines()
    except OSError as error:
        raise explain(error, str(path)) from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: class names are UTF-8 text, one a line") from None
    for number, line in enumerate(lines, 1):
        if not 0 < len(line.strip()) <= MAX_NAME:
            raise UsageError(f"{path}: line {number} is not a class name of 1 to {MAX_NAME} characters")
    return tuple(line.strip() for line in lines)


def _entry(name: str, model: TaskModel, labels: tuple[str, ...] | None, with_pixels: bool) -> Task:
    family = model.family
    classes = labels or class_names(family, model.classes)
    if classes is None:
        classes = tuple(f"class {index}" for index in range(model.classes))
    if len(classes) != model.classes:
        raise UsageError(f"{len(classes)} labels are given, but the task {name} has {model.classes} classes")
    return Task(
        name=name,
        family=family.name,
        kind=family.kind,
        classes=classes,
        sizes=family.sizes,
        preprocessing=family.preprocessing,
        pixels=with_pixels,
    )
