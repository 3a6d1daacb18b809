"""Jobs around vision models: stage 2's adapters, and the models on pixels that they start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from polc import codec_id
from polc.attention import set_attention_kernel
from polc.checkpoint import CLASSES, Checkpoint, load_checkpoint, save_checkpoint, save_official
from polc.families.tinylic.presets import ModelConfig, preset
from polc.tasks import TaskModel
from polc.tasks.registry import family as family_named
from polc.weights import persistent
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.errors import UsageError
from polc_runtime.files.outputs import write_file
from polc_runtime.metrics.scores import NO_CLASS, SCORINGS

from ..data.loader import first_batch
from ..data.segmentation import IGNORE, label_map
from ..data.vision import AUGMENTATIONS, VisionData, labelled_data, segmented_data
from ..initialise_adapter import initialise_adapter
from ..plan import PLANS, Plan, check_choice
from ..stages.pixels import PixelClassification, PixelSegmentation, PixelStage, cut
from ..stages.stage2 import Stage2, Stage2Classification, Stage2Segmentation
from ..validate import RealCoder, mean_rates
from .base import PathLike, Training, TrainingJob, Validation

INITIAL = ("random", "fit")
INITIAL_IMAGES = 64
"""Images that the closed-form initialisation looks at."""

TestSamples = Sequence[tuple[Tensor, ...]]
"""Images [1,3,H,W] in 0..1 and targets [1,...]."""


@dataclass(frozen=True, kw_only=True)
class VisionTraining(Training):
    """Every stage around a vision model.

    Attributes:
        family: kind of vision model, a name in `polc.tasks.FAMILIES`.
        weights: "timm", or the file of the vision model's weights; None for random ones.
        classes: of a segmentation, how many there are; None for the family's.
        augmentation: of a classification, a name in `polc_training.data.vision.AUGMENTATIONS`.
        ignore_labels: of a segmentation, labels in the masks that mean no class, as 255 does.
        reduce_zero_label: of a segmentation, whether masks count classes from 1, and 0 means no class.
    """

    kind: ClassVar[str]

    family: str
    weights: PathLike | None = None
    classes: int | None = None
    augmentation: str = "resized-crop"
    ignore_labels: Sequence[int] = ()
    reduce_zero_label: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)

    def vision_data(self) -> VisionData:
        """The data set.

        Raises:
            UsageError: several are named.
            DataError: it is missing or of another layout.
        """
        if len(self.data.sources) != 1:
            raise UsageError(f"dataset: expected one data set of labels, got {len(self.data.sources)}")
        source, given = self.data.sources[0], self.data.validation
        validation = None if given is None else Path(given)
        family, size = family_named(self.family), self.plan.patch_size
        if self.kind == CLASSIFICATION:
            return labelled_data(source, validation, family, self.augmentation, size)
        classes = self.classes or family.classes
        labels = label_map(classes, self.ignore_labels, self.reduce_zero_label)
        return segmented_data(source, validation, classes, labels, size)

    def model(self, data: VisionData, config: ModelConfig) -> TaskModel:
        """The vision model, behind an adapter to a codec's dimensions."""
        weights = None if self.weights is None else str(self.weights)
        return TaskModel.create(self.family, config, data.classes, weights=weights)

    def test_samples(self, data: VisionData) -> TestSamples:
        """What to validate on."""
        return data.test_samples(self.data.validation_images, self.plan.seed)

    def settings(self, data: VisionData) -> dict[str, Any]:
        """Facts that a resumed run must share."""
        return {"family": self.family, "classes": data.classes}


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


@dataclass(frozen=True, kw_only=True)
class PixelTraining(VisionTraining):
    """Both stages that train a vision model on pixels.

    Attributes:
        weight_decay: of AdamW.
    """

    module: ClassVar[type[PixelStage]]

    weight_decay: float = 0.05

    def job(self) -> PixelJob:
        """Makes the model, or loads its weights."""
        data = self.vision_data()
        task = self.model(data, preset(self.preset))
        clip = self.plan.clip_max_norm or None
        stage = self.module(task, self.plan.learning_rate, clip, self.weight_decay)
        return PixelJob(
            stage=stage, dataset=data.train, samples=self.test_samples(data), settings=self.settings(data)
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
        score = Score(self.stage.kind)
        device = next(learners.parameters()).device
        for image, target in self.samples:
            score.update(self.stage.predict(image.to(device)), target)
        return Validation(1 - score.value(), {score.name: score.value()})


@dataclass(frozen=True, kw_only=True)
class PixelsCls(PixelTraining):
    """A classifier on pixels, the teacher that stage 2 starts from."""

    stage: ClassVar[str] = "pixels-cls"
    kind: ClassVar[str] = CLASSIFICATION
    module: ClassVar[type[PixelStage]] = PixelClassification
    plan: Plan = PLANS["pixels-cls"]


@dataclass(frozen=True, kw_only=True)
class PixelsSeg(PixelTraining):
    """A segmenter on pixels, the teacher that stage 2 starts from."""

    stage: ClassVar[str] = "pixels-seg"
    kind: ClassVar[str] = SEGMENTATION
    module: ClassVar[type[PixelStage]] = PixelSegmentation
    plan: Plan = PLANS["pixels-seg"]


@dataclass(frozen=True, kw_only=True)
class AdapterTraining(VisionTraining):
    """Both stages that train an adapter between a frozen codec, `pretrained`, and a frozen vision model.

    Attributes:
        task: name of the task; None for the family's.
        stratified: whether a batch mixes the quality levels.
        distillation: weight of the feature MSE; None for 0.01, or 10 of a segmentation.
        init: a new adapter's weights: "random", or "fit" to fit them to the vision model's own stem.
    """

    module: ClassVar[type[Stage2]]

    task: str | None = None
    stratified: bool = False
    distillation: float | None = None
    init: str = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("init", self.init, INITIAL)

    def job(self) -> AdapterJob:
        """Loads the codec and the vision model; makes the adapter.

        Raises:
            UsageError: there is no codec to start from.
        """
        data = self.vision_data()
        if self.pretrained is None:
            raise UsageError("stage 2 needs the codec's checkpoint: give it as pretrained")
        checkpoint = load_checkpoint(self.pretrained)
        codec = checkpoint.codec
        task = self.model(data, codec.config)
        for model in (codec, task):
            set_attention_kernel(model, self.hardware.attention)
        rate, clip = self.plan.learning_rate, self.plan.clip_max_norm or None
        stage = self.module(codec, task, rate, clip, self.distillation, stratified=self.stratified)
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

    stage: Stage2
    samples: TestSamples
    training: AdapterTraining
    checkpoint: Checkpoint
    class_names: tuple[str, ...] | None

    def write(self, path: Path, learners: nn.Module, step: int) -> None:
        """Writes a checkpoint, and beside it one in the official layout if that is wanted."""
        start, run, task = self.checkpoint, self.training.run, self.stage.task
        name = self.training.task or task.family.name
        whole = TaskModel(task.family, learners, task.model)  # type: ignore[arg-type]
        facts = {**start.metadata, "stage": self.training.stage, "steps": step, **run.facts}
        facts[CLASSES] = {**start.classes, **({name: self.class_names} if self.class_names else {})}
        tables = start.tables()[0]
        save_checkpoint(path, start.codec, facts, tables, {**start.tasks, name: whole})
        if run.official_layout:
            save_official(path.with_suffix(".pth.tar"), start.codec, tables, whole)

    def validate(self, learners: nn.Module) -> Validation:
        """Scores the task at every level, on latents that were really coded."""
        codec, task = self.stage.codec, self.stage.task
        coder, rows = RealCoder(codec), []
        for quality in range(1, codec.config.levels + 1):
            score, coded = Score(self.stage.kind), []
            for image, target in self.samples:
                pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
                coded.append(coder.code(pixels, float(quality)))
                score.update(cut(task(coded[-1].y_hat, coded[-1].level), image), target)
            rows.append({"quality": quality, **mean_rates(coded), score.name: score.value()})
        loss = 1 - float(np.mean([row[score.name] for row in rows]))
        return Validation(loss, {"loss": loss, "levels": rows})


@dataclass(frozen=True, kw_only=True)
class Stage2Cls(AdapterTraining):
    """Stage 2: an adapter that classifies from a frozen codec's latents."""

    stage: ClassVar[str] = "stage2-cls"
    kind: ClassVar[str] = CLASSIFICATION
    module: ClassVar[type[Stage2]] = Stage2Classification
    plan: Plan = PLANS["stage2-cls"]


@dataclass(frozen=True, kw_only=True)
class Stage2Seg(AdapterTraining):
    """Stage 2: an adapter that segments from a frozen codec's latents."""

    stage: ClassVar[str] = "stage2-seg"
    kind: ClassVar[str] = SEGMENTATION
    module: ClassVar[type[Stage2]] = Stage2Segmentation
    plan: Plan = PLANS["stage2-seg"]
