"""Names of the classes that a task tells apart."""

from __future__ import annotations

from .architectures import import_timm
from .registry import Family

IMAGENET_CLASSES = 1000


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 ImageNet-1K class names, as timm carries them, in the order of the logits."""
    return tuple(import_timm().data.ImageNetInfo().label_descriptions())


def class_names(family: Family, classes: int) -> tuple[str, ...] | None:
    """Names of a family's classes where they are known: a classification of 1000 is ImageNet-1K's."""
    known = family.kind == "classification" and classes == IMAGENET_CLASSES
    return imagenet_classes() if known else None
