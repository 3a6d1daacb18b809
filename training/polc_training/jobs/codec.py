"""Stage 1: jobs that train the codec, without and with adversaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from polc.attention import set_attention_kernel
from polc.checkpoint import load_checkpoint, save_checkpoint, save_official
from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.family import with_levels
from polc.families.tinylic.presets import preset
from polc_runtime.datasets import image_files, split_folder
from polc_runtime.errors import DataError, UsageError
from polc_runtime.metrics.distortion import choose_metrics
from polc_runtime.pictures.images import Pixels, read_image

from ..data.images import ImageFolder
from ..data.loader import first_batch
from ..discriminator import Discriminators
from ..initialise import initialise
from ..perceptual import PerceptualLoss
from ..rate_distortion import RateDistortion
from ..runs import LAST
from ..stages.gan import AdversarialStage
from ..stages.stage1 import CodecStage, LearningRates
from ..validate import validate_codec, validation_loss
from .base import PathLike, Training, TrainingJob, Validation

INITIAL_CROPS = 64
"""Crops that the closed-form initialisation looks at."""
SAMPLE_IMAGES = 2


@dataclass(frozen=True, kw_only=True)
class CodecTraining(Training):
    """Stage 1: trains the codec at all quality levels.

    The loss is the rate against MSE and LPIPS.

    Attributes:
        perceptual: perceptual part of the loss; without one, MSE alone with lambdas of its own.
        lpips_weights: file of torchvision's VGG-16 weights. Default: torch's cache, or a download.
        stratified: whether a batch mixes the quality levels.
        aux_learning_rate: learning rate of the factorised prior's quantiles.
        entropy_scale: factor on the learning rate for the entropy networks.
        prior_scale: factor on the learning rate for the factorised prior.
        init: a new codec's weights: "random", or "pca" for principal components of training images.
    """

    perceptual: str = "lpips"
    lpips_weights: PathLike | None = None
    stratified: bool = False
    aux_learning_rate: float = 1e-3
    entropy_scale: float = 1.0
    prior_scale: float = 1.0
    init: str = "random"

    CHOICES: ClassVar = {**Training.CHOICES, "perceptual": ("lpips", "none"), "init": ("random", "pca")}

    @property
    def stage(self) -> str:
        """Its name."""
        return "stage1"

    def job(self) -> CodecJob:
        """Loads or makes the codec.

        Raises:
            UsageError: the codec does not take crops of the plan's size as they are.
        """
        dataset = ImageFolder(self.data.sources, self.plan.patch_size, split="train")
        codec = self.codec()
        if (patch := self.plan.patch_size) % (multiple := codec.plan.pad.multiple):
            raise UsageError(f"patch_size: expected a multiple of {multiple}, got {patch}")
        weights = self.weights(codec.config.levels)
        if self.init == "pca" and self.pretrained is None and not self.run.resume:
            initialise(codec, first_batch(dataset, INITIAL_CROPS, self.plan.seed)[0], weights)
        return CodecJob(
            stage=self.make_stage(codec, weights),
            dataset=dataset,
            samples=self.images(),
            settings={"config": codec.config.to_dict()},
            training=self,
        )

    def make_stage(self, codec: TinyLicCodec, weights: RateDistortion) -> CodecStage:
        """The module that is trained."""
        return CodecStage(codec, weights, self.distance(), self.rates(), self.clip, self.stratified)

    def codec(self) -> TinyLicCodec:
        """The codec to start from: a checkpoint's, or a new one; a resumed run's has the run's dimensions."""
        source = self.pretrained or (Path(self.run.folder) / LAST if self.run.resume else None)
        codec = with_levels(load_checkpoint(source).codec) if source else TinyLicCodec(preset(self.preset))
        set_attention_kernel(codec, self.hardware.attention)
        return codec

    def weights(self, levels: int) -> RateDistortion:
        """The loss's weights: the official ones, or those for MSE alone."""
        return (RateDistortion.official if self.perceptual == "lpips" else RateDistortion.mse_only)(levels)

    def distance(self) -> PerceptualLoss | None:
        """The perceptual part of the loss."""
        return PerceptualLoss(self.lpips_weights) if self.perceptual == "lpips" else None

    def rates(self) -> LearningRates:
        """The codec's learning rates."""
        return LearningRates(
            self.plan.learning_rate, self.aux_learning_rate, self.entropy_scale, self.prior_scale
        )

    def images(self) -> list[Pixels]:
        """The validation images, uint8 [H,W,3]; none where there are no data for it."""
        given = self.data.validation
        try:
            folders = [Path(given)] if given else [split_folder(each, "val") for each in self.data.sources]
        except DataError:
            return []
        files = [file for folder in folders for file in image_files(folder)]
        return [read_image(file).pixels for file in files[: self.data.validation_images]]


@dataclass(frozen=True, kw_only=True)
class CodecJob(TrainingJob):
    """Trains a codec; validation codes images, uint8 [H,W,3], for real."""

    stage: CodecStage
    samples: Sequence[Pixels]
    training: CodecTraining

    def write(self, path: Path, learners: nn.Module, step: int) -> None:
        """Writes the codec's checkpoint, and beside it one in the official layout if that is wanted."""
        assert isinstance(learners, TinyLicCodec)
        facts = {"stage": self.training.stage, "steps": step, **self.training.run.facts}
        tables = learners.tables()
        save_checkpoint(path, learners, facts, tables)
        if self.training.run.official_layout:
            save_official(path.with_suffix(".pth.tar"), learners, tables)

    def validate(self, learners: nn.Module) -> Validation:
        """Codes the images at every level; shows some at the worst, the middle and the best one."""
        assert isinstance(learners, TinyLicCodec)
        rows, decoded = validate_codec(learners, self.samples, choose_metrics())
        loss = validation_loss(rows, self.stage.weights)
        shown = {
            f"image{index}": np.concatenate(
                [original, *(decoded[level][index] for level in (0, len(rows) // 2, -1))], 1
            )
            for index, original in enumerate(self.samples[:SAMPLE_IMAGES])
        }
        return Validation(loss, {"loss": loss, "levels": rows}, shown)


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(CodecTraining):
    """Stage 1, adversarial: refines the codec.

    It starts from stage 1's checkpoint, with one discriminator for each quality level.

    Attributes:
        discriminator_learning_rate: learning rate of the discriminators.
    """

    discriminator_learning_rate: float = 1e-4
    init: str = field(default="random", init=False)  # it always starts from a checkpoint

    @property
    def stage(self) -> str:
        """Its name."""
        return "stage1-gan"

    def make_stage(self, codec: TinyLicCodec, weights: RateDistortion) -> CodecStage:
        """The module that is trained.

        Raises:
            UsageError: there is no codec to start from.
        """
        if self.pretrained is None and not self.run.resume:
            raise UsageError("stage1-gan starts from stage 1's checkpoint: give it as pretrained")
        discriminators = Discriminators(codec.config.latent_channels, codec.config.levels)
        common = weights, self.distance(), self.rates(), self.discriminator_learning_rate
        return AdversarialStage(codec, discriminators, *common, self.clip, self.stratified)
