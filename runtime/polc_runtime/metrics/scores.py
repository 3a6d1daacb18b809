"""How well predictions meet the truth: counts that add up over images, and the scores made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import FloatArray
from ..bundle import CLASSIFICATION, SEGMENTATION

Classes = NDArray[np.int64]
"""The class of an image, [], or of each of its pixels, [H,W]; -1 does not count."""

Counts = NDArray[np.int64]
TOP = (1, 5)
NO_CLASS = -1


@dataclass(frozen=True)
class Scoring:
    """How the predictions of one kind of task are counted.

    Attributes:
        count: logits and truth of an image -> counts; those of several images are added.
        figures: counts -> fractions, 0..1, by name.
        headline: the figure that is plotted.
        heading: what the plot calls it.
    """

    count: Callable[[FloatArray, Classes], Counts]
    figures: Callable[[Counts], dict[str, float | None]]
    headline: str
    heading: str


def count_top(logits: FloatArray, truth: Classes) -> Counts:
    """1, and whether the true class has the largest, and one of the five largest of the logits [classes].

    Of equal logits the first counts as the larger.
    """
    rank = int(np.flatnonzero(np.argsort(-logits, kind="stable") == truth)[0])
    return np.array([1, *(rank < k for k in TOP)], np.int64)


def top_figures(counts: Counts) -> dict[str, float | None]:
    """top-1 and top-5: the fraction of images whose class is among the 1 or 5 largest logits."""
    return {f"top-{k}": float(hits / counts[0]) for k, hits in zip(TOP, counts[1:], strict=True)}


def count_pixels(logits: FloatArray, truth: Classes) -> Counts:
    """Pixels by true and predicted class, [classes,classes], of logits [classes,H,W] and truth [H,W]."""
    classes = logits.shape[0]
    counted = truth != NO_CLASS
    pairs = truth[counted] * classes + logits.argmax(0)[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(counts: Counts) -> list[float | None]:
    """Intersection over union of each class, from counts [true class, predicted class].

    None where a class is neither true nor predicted anywhere.
    """
    hits = np.diagonal(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    return [float(hit / size) if size else None for hit, size in zip(hits, union, strict=True)]


def pixel_figures(counts: Counts) -> dict[str, float | None]:
    """Mean IoU, over the classes that are true or predicted somewhere, and the fraction of right pixels.

    Both are None where no pixel counts.
    """
    present = [value for value in class_iou(counts) if value is not None]
    total = int(counts.sum())
    return {
        "miou": float(np.mean(present)) if present else None,
        "pixel-accuracy": float(np.trace(counts) / total) if total else None,
    }


SCORINGS: dict[str, Scoring] = {
    CLASSIFICATION: Scoring(count_top, top_figures, "top-1", "top-1 accuracy"),
    SEGMENTATION: Scoring(count_pixels, pixel_figures, "miou", "mean IoU"),
}
"""By the kind of task."""


def agreement(one: FloatArray, other: FloatArray) -> dict[str, float]:
    """The fraction of images or pixels on which two models agree, and the largest difference of logits.

    Args:
        one: [classes] or [classes,H,W].
        other: likewise.
    """
    return {
        "agreement": float(np.mean(one.argmax(0) == other.argmax(0))),
        "difference": float(np.abs(one - other).max()),
    }


def by_class(names: tuple[str, ...], counts: list[Counts]) -> dict[str, list[Any]]:
    """IoU of each class at each quality."""
    columns = zip(*(class_iou(each) for each in counts), strict=True)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}
