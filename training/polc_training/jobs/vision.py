"""Jobs around vision models: stage 2's adapters, and the models on pixels that they start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from polc import codec_id
from polc.attention import set_attention_kernel
from polc.checkpoint import CLASSES, Checkpoint, load_checkpoint, save_checkpoint, save_official
from polc.families.tinylic.family import with_levels
from polc.families.tinylic.presets import ModelConfig, preset
from polc.tasks import TaskModel
from polc.tasks.registry import family as family_named
from polc.weights import persistent
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.datasets import paired_folders
from polc_runtime.errors import DataError, UsageError
from polc_runtime.files.outputs import write_file
from polc_runtime.metrics.scores import NO_CLASS, SCORINGS

from ..data.classification import CentralCrop, LabelledImages, PaddedCrop, RandomResizedCrop
from ..data.loader import Samples, drawn, first_batch
from ..data.segmentation import (
    IGNORE,
    RandomView,
    SegmentationImages,
    label_map,
    listed_pairs,
    whole_view,
)
from ..initialise_adapter import initialise_adapter
from ..stages.pixels import PixelStage, cut
from ..stages.stage2 import AdapterStage
from ..validate import RealCoder, mean_rates
from .base import PathLike, Training, TrainingJob, Validation

SUFFIXES = {CLASSIFICATION: "cls", SEGMENTATION: "seg"}
"""Ends of the stages' names by kind of task."""
INITIAL_IMAGES = 64
"""Images that the closed-form initialisation looks at."""

AUGMENTATIONS = {"resized-crop": RandomResizedCrop, "padded-crop": PaddedCrop}

TestSamples = Sequence[tuple[Tensor, ...]]
"""Images [1,3,H,W] in 0..1 and targets [1,...]."""


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


@dataclass(frozen=True, kw_only=True)
class VisionTraining(Training):
    """Every stage around a vision model.

    Attributes:
        family: kind of vision model, a name in `polc.tasks.FAMILIES`.
        weights: the vision model's weights: "timm", or a file. Default: random ones.
        classes: of a segmentation: number of classes. Default: the family's.
        augmentation: of a classification: random parts of photos, or small shifts of thumbnails.
        ignore_labels: of a segmentation: labels in the masks that mean no class, as 255 does.
        reduce_zero_label: of a segmentation: masks count classes from 1, and 0 means no class, as in ADE20K.
    """

    family: str
    weights: PathLike | None = None
    classes: int | None = None
    augmentation: str = "resized-crop"
    ignore_labels: Sequence[int] = ()
    reduce_zero_label: bool = False

    CHOICES: ClassVar = {**Training.CHOICES, "augmentation": tuple(AUGMENTATIONS)}
    BOUNDS: ClassVar = {"classes": 2}

    @property
    def kind(self) -> str:
        """Of the task: classification or segmentation."""
        return family_named(self.family).kind

    def vision_data(self) -> VisionData:
        """The data set.

        Raises:
            UsageError: several are named.
            DataError: it is missing or of another layout.
        """
        if len(self.data.sources) != 1:
            raise UsageError(f"dataset: expected one data set of labels, got {len(self.data.sources)}")
        source = self.data.sources[0]
        given = None if self.data.validation is None else Path(self.data.validation)
        return (self._labelled if self.kind == CLASSIFICATION else self._segmented)(source, given)

    def _labelled(self, source: Path, given: Path | None) -> VisionData:
        augment, evaluate = AUGMENTATIONS[self.augmentation], family_named(self.family).preprocessing
        train = LabelledImages(source, augment(self.plan.patch_size), "train")
        try:
            test = LabelledImages(given or source, CentralCrop(evaluate), None if given else "val")
        except DataError:
            if given is not None:
                raise
            return VisionData(train, None, len(train.classes), train.classes)
        if test.classes != train.classes:
            raise DataError(f"{given or source}: has other classes than the training data")
        return VisionData(train, test, len(train.classes), train.classes)

    def _segmented(self, source: Path, given: Path | None) -> VisionData:
        classes = self.classes or family_named(self.family).classes
        labels = label_map(classes, self.ignore_labels, self.reduce_zero_label)
        view = RandomView(self.plan.patch_size)
        train = SegmentationImages(_pairs(source, "train"), view, classes, labels)
        if given is None and source.is_file():
            return VisionData(train, None, classes)
        try:
            pairs = _pairs(given or source, None if given else "val")
        except DataError:
            if given is not None:
                raise
            return VisionData(train, None, classes)
        return VisionData(train, SegmentationImages(pairs, whole_view, classes, labels), classes)

    def model(self, data: VisionData, config: ModelConfig) -> TaskModel:
        """The vision model, behind an adapter to a codec's dimensions."""
        weights = None if self.weights is None else str(self.weights)
        return TaskModel.create(self.family, config, data.classes, weights=weights)

    def test_samples(self, data: VisionData) -> TestSamples:
        """What to validate on, drawn by the seed."""
        if data.test is None:
            return []
        return drawn(data.test, self.data.validation_images, self.plan.seed)

    def settings(self, data: VisionData) -> dict[str, Any]:
        """Facts that a resumed run must share."""
        return {"family": self.family, "classes": data.classes}


def _pairs(source: Path, split: str | None) -> list[tuple[Path, Path]]:
    return listed_pairs(source) if source.is_file() else paired_folders(source, split)


def score(kind: str, logits: Iterable[Tensor], targets: Iterable[Tensor]) -> dict[str, float]:
    """Top-1 of classifications or mean IoU of segmentations, 0..1, counted as `polc-bench accuracy` does.

    Args:
        kind: of the task.
        logits: of each sample, [1,classes,...].
        targets: of each sample, its class [1], or classes [1,H,W].
    """
    scoring, counts = SCORINGS[kind], cast(Any, 0)
    for each, target in zip(logits, targets, strict=True):
        truth = target[0].where(target[0] != IGNORE, NO_CLASS).numpy()
        counts = counts + scoring.count(each[0].cpu().numpy(), truth)
    return {scoring.headline: scoring.figures(counts)[scoring.headline] or 0.0}


@dataclass(frozen=True, kw_only=True)
class PixelTraining(VisionTraining):
    """Before stage 2: trains a vision model on pixels.

    Attributes:
        weight_decay: of AdamW.
    """

    weight_decay: float = 0.05

    BOUNDS: ClassVar = {**VisionTraining.BOUNDS, "weight_decay": 0}

    @property
    def stage(self) -> str:
        """Its name: pixels-cls or pixels-seg."""
        return f"pixels-{SUFFIXES[self.kind]}"

    def job(self) -> PixelJob:
        """Makes the model, or loads its weights."""
        data = self.vision_data()
        task = self.model(data, preset(self.preset))
        return PixelJob(
            stage=PixelStage(task, self.plan.learning_rate, self.clip, self.weight_decay),
            dataset=data.train,
            samples=self.test_samples(data),
            settings=self.settings(data),
        )


@dataclass(frozen=True, kw_only=True)
class PixelJob(TrainingJob):
    """Trains a vision model; a checkpoint holds it alone, as `weights` takes it."""

    stage: PixelStage
    samples: TestSamples

    def write(self, path: Path, learners: nn.Module, step: int) -> None:
        """Writes the vision model."""
        state = {key: value.detach().cpu().contiguous() for key, value in persistent(learners).items()}
        write_file(path, save(state), force=True)

    def validate(self, learners: nn.Module) -> Validation:
        """Scores it; the loss is what it lacks to a score of 1."""
        images, targets = zip(*self.samples, strict=True)
        device = next(learners.parameters()).device
        logits = (self.stage.predict(image.to(device)) for image in images)
        found = score(self.stage.task.family.kind, logits, targets)
        return Validation(1 - sum(found.values()), found)


@dataclass(frozen=True, kw_only=True)
class AdapterTraining(VisionTraining):
    """Stage 2: trains an adapter for a vision model.

    It takes latents of a frozen codec, `pretrained`, to a frozen vision model.

    Attributes:
        task: name of the task. Default: the family's.
        stratified: whether a batch mixes the quality levels.
        distillation: weight of the feature MSE. Default: 0.01, or 10 of a segmentation.
        init: a new adapter's weights: "random", or "fit" to fit them to the vision model's own stem.
    """

    task: str | None = None
    stratified: bool = False
    distillation: float | None = None
    init: str = "random"

    CHOICES: ClassVar = {**VisionTraining.CHOICES, "init": ("random", "fit")}
    BOUNDS: ClassVar = {**VisionTraining.BOUNDS, "distillation": 0}

    @property
    def stage(self) -> str:
        """Its name: stage2-cls or stage2-seg."""
        return f"stage2-{SUFFIXES[self.kind]}"

    def job(self) -> AdapterJob:
        """Loads the codec and the vision model; makes the adapter.

        Raises:
            UsageError: there is no codec to start from.
        """
        data = self.vision_data()
        if self.pretrained is None:
            raise UsageError("stage 2 needs the codec's checkpoint: give it as pretrained")
        checkpoint = load_checkpoint(self.pretrained)
        codec = with_levels(checkpoint.codec)
        task = self.model(data, codec.config)
        for model in (codec, task):
            set_attention_kernel(model, self.hardware.attention)
        rate = self.plan.learning_rate
        stage = AdapterStage(codec, task, rate, self.clip, self.distillation, stratified=self.stratified)
        start = {}
        if self.init == "fit" and not self.run.resume:
            images = first_batch(data.train, INITIAL_IMAGES, self.plan.seed)[0]
            start["unexplained_variance"] = initialise_adapter(stage, images)
        return AdapterJob(
            stage=stage,
            dataset=data.train,
            samples=self.test_samples(data),
            settings=self.settings(data) | {"codec": codec_id(codec).hex()},
            start=start,
            training=self,
            checkpoint=checkpoint,
            class_names=data.names,
        )


@dataclass(frozen=True, kw_only=True)
class AdapterJob(TrainingJob):
    """Trains an adapter; a checkpoint holds codec, adapter and vision model, and the codec's other tasks."""

    stage: AdapterStage
    samples: TestSamples
    training: AdapterTraining
    checkpoint: Checkpoint
    class_names: tuple[str, ...] | None

    def write(self, path: Path, learners: nn.Module, step: int) -> None:
        """Writes a checkpoint, and beside it one in the official layout if that is wanted."""
        start, run, task = self.checkpoint, self.training.run, self.stage.task
        name = self.training.task or task.family.name
        whole = TaskModel(task.family, learners, task.model)  # type: ignore[arg-type]
        earlier = {key: value for key, value in start.metadata.items() if key != "command"}
        facts = {**earlier, "stage": self.training.stage, "steps": step, **run.facts}
        facts[CLASSES] = {**start.classes, **({name: self.class_names} if self.class_names else {})}
        tables = start.tables()[0]
        save_checkpoint(path, start.codec, facts, tables, {**start.tasks, name: whole})
        if run.official_layout:
            save_official(path.with_suffix(".pth.tar"), start.codec, tables, whole)

    def validate(self, learners: nn.Module) -> Validation:
        """Scores the task at every level, on latents that were really coded."""
        codec, task = self.stage.codec, self.stage.task
        coder, rows = RealCoder(codec), []
        images, targets = zip(*self.samples, strict=True)
        pixels = [(image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy() for image in images]
        for quality in range(1, codec.config.levels + 1):
            coded = [coder.code(each, float(quality)) for each in pixels]
            logits = (cut(task(c.y_hat, c.level), image) for c, image in zip(coded, images, strict=True))
            found = score(task.family.kind, logits, targets)
            rows.append({"quality": quality, **mean_rates(coded), **found})
        loss = 1 - float(np.mean([row[name] for row in rows for name in found]))
        return Validation(loss, {"loss": loss, "levels": rows})
