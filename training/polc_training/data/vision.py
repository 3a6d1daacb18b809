"""Data of vision tasks: what to learn from, what to validate on, and their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from polc.tasks.registry import Family
from polc_runtime.datasets import paired_folders
from polc_runtime.errors import DataError

from .classification import CentralCrop, LabelledImages, PaddedCrop, RandomResizedCrop
from .loader import Samples, drawn
from .segmentation import RandomView, SegmentationImages, listed_pairs

AUGMENTATIONS: dict[str, Callable[[int], Any]] = {
    "resized-crop": RandomResizedCrop,
    "padded-crop": PaddedCrop,
}


@dataclass(frozen=True)
class VisionData:
    """Data of a vision task.

    Attributes:
        train: samples to learn from.
        test: samples to validate on; None where there are none.
        classes: how many there are.
        names: their names, where the data have them.
    """

    train: Samples
    test: Samples | None
    classes: int
    names: tuple[str, ...] | None = None

    def test_samples(self, count: int, seed: int) -> list[tuple[Tensor, ...]]:
        """`count` of the test samples, drawn by the seed: (image [1,3,H,W], target [1,...])."""
        return [] if self.test is None else drawn(self.test, count, seed)


def labelled_data(
    source: Path, validation: Path | None, family: Family, augmentation: str, size: int
) -> VisionData:
    """Images sorted into classes.

    Args:
        source: as `LabelledImages` takes it.
        validation: likewise, for the test samples; None for a split of `source`, if there is one.
        family: of the model, whose preprocessing the test samples get.
        augmentation: a name in `AUGMENTATIONS`.
        size: side of the training crops.

    Raises:
        DataError: the data are missing, of another layout, or the classes of both differ.
    """
    train = LabelledImages(source, AUGMENTATIONS[augmentation](size), "train")
    try:
        split, evaluate = None if validation else "val", CentralCrop(family.preprocessing)
        test = LabelledImages(validation or source, evaluate, split)
    except DataError:
        if validation is not None:
            raise
        test = None
    if test is not None and test.classes != train.classes:
        raise DataError(f"{validation or source}: has other classes than the training data")
    return VisionData(train, test, len(train.classes), train.classes)


def segmented_data(
    source: Path, validation: Path | None, classes: int, labels: Mapping[int, int], size: int
) -> VisionData:
    """Images with label maps.

    Args:
        source: a folder, as `paired_folders` takes it, or a list file, as `listed_pairs` does.
        validation: likewise, for the test samples; None for a split of the folder, if there is one.
        classes: how many there are.
        labels: what to make of the labels in the files; see `label_map`.
        size: side of the training crops.

    Raises:
        DataError: the data are missing or of another layout.
    """
    train = SegmentationImages(_pairs(source, "train"), RandomView(size), classes, labels)
    if validation is None and source.is_file():
        return VisionData(train, None, classes)
    try:
        pairs = _pairs(validation or source, None if validation else "val")
    except DataError:
        if validation is not None:
            raise
        return VisionData(train, None, classes)
    return VisionData(train, SegmentationImages(pairs, _whole, classes, labels), classes)


def _pairs(source: Path, split: str | None) -> list[tuple[Path, Path]]:
    return listed_pairs(source) if source.is_file() else paired_folders(source, split)


def _whole(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Whole images, which the stages pad themselves."""
    return image, labels
