"""What the commands around vision models share: models, data, validation, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from polc.families.tinylic.codec import Codec
from polc.tasks import FAMILIES, TaskModel
from polc.tasks.registry import Family
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.cli.options import Decorator, grouped
from polc_runtime.datasets import paired_folders
from polc_runtime.errors import DataError, UsageError
from polc_runtime.metrics.scores import NO_CLASS, SCORINGS

from .cli.options import RunOptions
from .data.classification import CentralCrop, LabelledImages, PaddedCrop, RandomResizedCrop
from .data.loader import Samples, seeded
from .data.segmentation import (
    IGNORE,
    RandomView,
    SegmentationImages,
    WholeView,
    label_map,
    listed_pairs,
)
from .log import Log
from .stages.pixels import cut
from .validate import RealCoder, mean_rates

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
    names: tuple[str, ...] | None


@dataclass(frozen=True)
class VisionOptions:
    """The options of the vision commands; see their help."""

    family: str
    weights: str | None
    classes: int | None
    augmentation: str
    ignore_labels: tuple[int, ...]
    reduce_zero_label: bool


def vision_options(kind: str) -> Decorator:
    """Declares the vision options of a kind of task; the command gets them as one `VisionOptions`."""
    families = [name for name, family in FAMILIES.items() if family.kind == kind]
    options = {
        "family": click.option(
            "--family", type=click.Choice(families), required=True, help="Kind of vision model."
        ),
        "weights": click.option(
            "--weights", metavar="timm|FILE", help="The vision model's weights. Default: random ones."
        ),
        "classes": click.option(
            "--classes",
            type=click.IntRange(min=2),
            help="Number of classes. Default: the data's or family's.",
        ),
        "augmentation": click.option(
            "--augmentation",
            type=click.Choice(list(AUGMENTATIONS)),
            default="resized-crop",
            show_default=True,
            help="Of a classification: random parts of photos, or small shifts of thumbnails.",
        ),
        "ignore_labels": click.option(
            "--ignore-label",
            "ignore_labels",
            type=click.IntRange(0, 65535),
            multiple=True,
            help="Of a segmentation: a label in the masks that means no class, as 255 does; may repeat.",
        ),
        "reduce_zero_label": click.option(
            "--reduce-zero-label",
            is_flag=True,
            help="Of a segmentation: masks count classes from 1, and 0 means no class, as in ADE20K.",
        ),
    }

    return grouped("vision", VisionOptions, options)


def load_data(run: RunOptions, vision: VisionOptions) -> VisionData:
    """The data that the options name.

    Raises:
        UsageError: several data sets are named.
        DataError: they are missing or of another layout.
    """
    if len(run.dataset) != 1:
        raise UsageError("--dataset: a vision task takes one data set")
    family = FAMILIES[vision.family]
    load = {CLASSIFICATION: _classification, SEGMENTATION: _segmentation}[family.kind]
    return load(run, vision, family)


def _classification(run: RunOptions, vision: VisionOptions, family: Family) -> VisionData:
    train = LabelledImages(run.dataset[0], AUGMENTATIONS[vision.augmentation](run.patch_size), "train")
    source, evaluate = run.validation or run.dataset[0], CentralCrop(family.preprocessing)
    try:
        test = LabelledImages(source, evaluate, None if run.validation else "val")
    except DataError:
        if run.validation:
            raise
        test = None
    if test is not None and test.classes != train.classes:
        raise DataError(f"{source}: its classes are others than those of the training data")
    return VisionData(train, test, len(train.classes), train.classes)


def _segmentation(run: RunOptions, vision: VisionOptions, family: Family) -> VisionData:
    classes = vision.classes or family.classes
    remap = label_map(classes, vision.ignore_labels, vision.reduce_zero_label)
    source = run.dataset[0]
    pairs = listed_pairs(source) if source.is_file() else paired_folders(source, "train")
    train = SegmentationImages(pairs, RandomView(run.patch_size), classes, remap)
    return VisionData(train, _segmentation_test(run, classes, remap), classes, None)


def _segmentation_test(run: RunOptions, classes: int, remap: dict[int, int]) -> SegmentationImages | None:
    if run.validation is not None:
        named = run.validation
        pairs = listed_pairs(named) if named.is_file() else paired_folders(named)
    elif run.dataset[0].is_file():
        return None
    else:
        try:
            pairs = paired_folders(run.dataset[0], "val")
        except DataError:
            return None
    return SegmentationImages(pairs, WholeView(), classes, remap)


def test_samples(data: VisionData, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`count` of the test samples, drawn by the seed: (image [1,3,H,W], target [1,...])."""
    if data.test is None:
        return []
    chosen = torch.randperm(len(data.test), generator=seeded(seed))[:count].tolist()
    pairs = (data.test.sample(index, seeded(seed, index)) for index in sorted(chosen))
    return [(image[None], target[None]) for image, target in pairs]


class Score:
    """Top-1 of classifications or mean IoU of segmentations, counted as `polc-bench accuracy` does."""

    def __init__(self, kind: str) -> None:
        self.scoring = SCORINGS[kind]
        self.counts: Any = 0
        self.name = self.scoring.headline

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Counts one sample: logits [1,classes,...] and its class, or classes [1,H,W]."""
        truth = target[0].where(target[0] != IGNORE, NO_CLASS).numpy()
        self.counts = self.counts + self.scoring.count(logits[0].cpu().numpy(), truth)

    def value(self) -> float:
        """The score, 0..1; 0 where nothing was counted."""
        return self.scoring.figures(self.counts)[self.name] or 0.0


def validate_pixels(
    predict: Callable[[Tensor], Tensor],
    score: Callable[[], Score],
    samples: Sequence[tuple[Tensor, Tensor]],
    learners: nn.Module,
    step: int,
    log: Log,
) -> float:
    """Scores a vision model on pixels; the loss is what it lacks to a score of 1."""
    found = score()
    for image, target in samples:
        found.update(predict(image), target)
    log.record("validation", step, {found.name: found.value()})
    return 1 - found.value()


def validate_latents(
    codec: Codec,
    task: TaskModel,
    score: Callable[[], Score],
    samples: Sequence[tuple[Tensor, Tensor]],
    learners: nn.Module,
    step: int,
    log: Log,
) -> float:
    """Scores a task model at every level, on latents that were really coded."""
    coder, rows = RealCoder(codec), []
    for quality in range(1, codec.config.levels + 1):
        found, coded = score(), []
        for image, target in samples:
            pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
            coded.append(coder.code(pixels, float(quality)))
            found.update(cut(task(coded[-1].y_hat, coded[-1].level), image), target)
        rows.append({"quality": quality, **mean_rates(coded), found.name: found.value()})
    loss = 1 - float(np.mean([row[found.name] for row in rows]))
    log.record("validation", step, {"loss": loss, "levels": rows})
    return loss


def scorer(family: Family) -> Callable[[], Score]:
    """Makes scores of a family's kind."""
    return partial(Score, family.kind)


def named_classes(data: VisionData, name: str) -> dict[str, tuple[str, ...]]:
    """Names of a task's classes by the task's name; empty where they are not known."""
    return {} if data.names is None else {name: data.names}


def vision_model(vision: VisionOptions, data: VisionData, config: Any) -> TaskModel:
    """The task model that the options describe, for a codec's dimensions."""
    return TaskModel.create(vision.family, config, data.classes, weights=vision.weights)


def resolved(path: Path | None, what: str) -> Path:
    """A path that must be given.

    Raises:
        UsageError: it is not.
    """
    if path is None:
        raise UsageError(f"{what} is needed: name it by --pretrained")
    return path
