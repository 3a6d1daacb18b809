"""Names of the classes that a task tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polc_runtime.bundle.tasks import MAX_NAME
from polc_runtime.errors import CheckpointError

from .architectures import import_timm
from .model import TaskModel
from .registry import Family

IMAGENET_CLASSES = 1000


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 ImageNet-1K class names, as timm carries them, in the order of the logits."""
    return tuple(import_timm().data.ImageNetInfo().label_descriptions())


def class_names(family: Family, classes: int) -> tuple[str, ...] | None:
    """Names of a family's classes where they are known: a classification of 1000 is ImageNet-1K's."""
    known = family.kind == "classification" and classes == IMAGENET_CLASSES
    return imagenet_classes() if known else None


def check_class_names(names: Any, tasks: Mapping[str, TaskModel]) -> dict[str, tuple[str, ...]]:
    """Names of classes as a checkpoint's metadata gives them: lists, by the task's name.

    Raises:
        CheckpointError: they are not lists of names, or do not fit the tasks.
    """
    if not isinstance(names, Mapping):
        raise CheckpointError("the names of classes are not usable: expected a list for each task's name")
    for task, entries in names.items():
        if task not in tasks:
            raise CheckpointError(f"there are names of classes for {task!r}, but no such task")
        if not isinstance(entries, (list, tuple)) or not all(map(_is_name, entries)):
            raise CheckpointError(
                f"the names of {task}'s classes are not usable: expected texts of 1 to {MAX_NAME} characters"
            )
        if len(entries) != tasks[task].classes:
            raise CheckpointError(
                f"there are {len(entries)} names of classes for {task}, which has {tasks[task].classes}"
            )
    return {task: tuple(entries) for task, entries in names.items()}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME
