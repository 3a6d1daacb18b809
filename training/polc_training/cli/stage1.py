"""`polc-train stage1` and `stage1-gan`: the codec, without and with adversaries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import numpy as np
from torch import nn

from polc.attention import set_attention_kernel
from polc.checkpoint import load_checkpoint, save_checkpoint, save_official
from polc.families.tinylic.codec import Codec
from polc.families.tinylic.family import with_levels
from polc.families.tinylic.presets import preset
from polc_runtime.bitstream.geometry import PAD_MULTIPLE
from polc_runtime.cli.options import grouped
from polc_runtime.datasets import image_files, split_folder
from polc_runtime.errors import DataError, UsageError
from polc_runtime.metrics.distortion import choose_metrics
from polc_runtime.pictures.images import Pixels, read_image

from ..data.images import ImageFolder
from ..data.loader import make_loader
from ..discriminator import Discriminators
from ..initialise import initialise
from ..log import Log
from ..perceptual import PerceptualLoss
from ..rate_distortion import RateDistortion, lambdas_of
from ..runs import LAST
from ..stages.gan import AdversarialStage
from ..stages.stage1 import CodecStage, LearningRates
from ..validate import validate_codec, validation_loss
from .execute import Job, command_line, execute
from .options import RunOptions, StageDefaults, run_options

DEFAULTS = StageDefaults(epochs=400, patch=256, milestone=300)
INITIAL_CROPS = 64
"""Crops that the closed-form initialisation looks at."""
SAMPLE_PICTURES = 2

EXAMPLES = """\b
Examples:
  polc-train stage1 -d photos/ --validation kodak/
  polc-train stage1 -d photos/ --preset polc-nano --perceptual none --init pca --patch_size 128 \\
    --batch_size 4 --stratified -lr 3e-4 --schedule cosine --max-steps 10000 --ema 0.998
  polc-train stage1 -d photos/ --checkpoint checkpoints/stage1
"""
GAN_EXAMPLES = """\b
Example:
  polc-train stage1-gan -d photos/ --pretrained checkpoints/stage1/best.safetensors
"""


@dataclass(frozen=True)
class CodecOptions:
    """The options of both stages that train the codec; see their help."""

    perceptual: str
    lpips_weights: Path | None
    stratified: bool
    auxiliary: float
    entropy_scale: float
    prior_scale: float

    def rates(self, run: RunOptions) -> LearningRates:
        """The codec's learning rates."""
        return LearningRates(run.learning_rate, self.auxiliary, self.entropy_scale, self.prior_scale)

    def distance(self) -> PerceptualLoss | None:
        """The perceptual part of the loss."""
        return PerceptualLoss(self.lpips_weights) if self.perceptual == "lpips" else None

    def weights(self, levels: int) -> RateDistortion:
        """The loss's weights: the official ones, or those for MSE alone."""
        if self.perceptual == "lpips":
            return RateDistortion(lambdas_of(True, levels))
        return RateDistortion.mse_only(levels)


codec_options = grouped(
    "codec_options",
    CodecOptions,
    {
        "perceptual": click.option(
            "--perceptual",
            type=click.Choice(["lpips", "none"]),
            default="lpips",
            show_default=True,
            help="Perceptual part of the loss; without one, MSE alone with lambdas of its own.",
        ),
        "lpips_weights": click.option(
            "--lpips-weights",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="torchvision's VGG-16 weights, for a machine without a network.",
        ),
        "stratified": click.option(
            "--stratified", is_flag=True, help="Mix the quality levels within a batch."
        ),
        "auxiliary": click.option(
            "--aux-learning-rate",
            "auxiliary",
            type=float,
            default=1e-3,
            show_default=True,
            help="Learning rate of the factorised prior's quantiles.",
        ),
        "entropy_scale": click.option(
            "--entropy-scale",
            type=float,
            default=1.0,
            show_default=True,
            help="Factor on the learning rate for the entropy networks.",
        ),
        "prior_scale": click.option(
            "--prior-scale",
            type=float,
            default=1.0,
            show_default=True,
            help="Factor on the learning rate for the factorised prior.",
        ),
    },
)


@click.command(epilog=EXAMPLES)
@run_options(DEFAULTS)
@codec_options
@click.option(
    "--init",
    "initial",
    type=click.Choice(["random", "pca"]),
    default="random",
    show_default=True,
    help="A new codec's weights: random, or principal components of the training images.",
)
def stage1(run: RunOptions, codec_options: CodecOptions, initial: str) -> int:
    """Train the codec for rate against MSE and LPIPS, over all quality levels."""

    def build() -> Job:
        dataset = training_images(run)
        codec = starting_codec(run)
        weights = codec_options.weights(codec.config.levels)
        if initial == "pca" and run.pretrained is None and run.checkpoint is None:
            crops = next(iter(make_loader(dataset, INITIAL_CROPS, seed=run.seed, drop_last=False)))[0]
            initialise(codec, crops, weights)
        stage = CodecStage(
            codec,
            weights,
            codec_options.distance(),
            codec_options.rates(run),
            run.clip_max_norm or None,
            codec_options.stratified,
        )
        return codec_job("stage1", run, stage, dataset)

    return execute("stage1", run, build)


@click.command("stage1-gan", epilog=GAN_EXAMPLES)
@run_options(DEFAULTS)
@codec_options
@click.option(
    "-lrd",
    "--discriminator-learning-rate",
    "discriminator_rate",
    type=float,
    default=1e-4,
    show_default=True,
    help="Learning rate of the discriminators.",
)
def stage1_gan(run: RunOptions, codec_options: CodecOptions, discriminator_rate: float) -> int:
    """Train the codec against one discriminator a level, from stage 1's checkpoint."""

    def build() -> Job:
        if run.pretrained is None and run.checkpoint is None:
            raise UsageError("stage1-gan starts from stage 1's checkpoint: name it by --pretrained")
        codec = starting_codec(run)
        config = codec.config
        stage = AdversarialStage(
            codec,
            Discriminators(config.latent_channels, config.levels),
            codec_options.weights(config.levels),
            codec_options.distance(),
            codec_options.rates(run),
            discriminator_rate,
            run.clip_max_norm or None,
            codec_options.stratified,
        )
        return codec_job("stage1-gan", run, stage, training_images(run))

    return execute("stage1-gan", run, build)


def training_images(run: RunOptions) -> ImageFolder:
    """The training data of stage 1.

    Raises:
        UsageError: the crops' side is no multiple of 64.
        DataError: there are no images.
    """
    if run.patch_size % PAD_MULTIPLE:
        raise UsageError(f"--patch_size must be a multiple of {PAD_MULTIPLE}, got {run.patch_size}")
    return ImageFolder(run.dataset, run.patch_size, split="train")


def starting_codec(run: RunOptions) -> Codec:
    """The codec that training starts from: a checkpoint's, or a new one of the preset.

    A run that goes on takes its dimensions from what it last kept.
    """
    source = run.pretrained or (run.checkpoint and run.checkpoint / LAST)
    codec = with_levels(load_checkpoint(source).codec) if source else Codec(preset(run.preset))
    set_attention_kernel(codec, run.attention)
    return codec


def codec_job(name: str, run: RunOptions, stage: CodecStage, dataset: ImageFolder) -> Job:
    """A job that trains a codec: how it is written and validated."""
    images = validation_images(run)
    settings = {"config": stage.codec.config.to_dict(), "patch": run.patch_size}
    return Job(
        stage,
        dataset,
        partial(write_codec, name, run.official_layout),
        partial(_validate, stage.weights, images) if images else None,
        settings,
    )


def validation_images(run: RunOptions) -> list[Pixels]:
    """The validation images, uint8 [H,W,3]; none where there are no data for it."""
    try:
        folders = [run.validation] if run.validation else [split_folder(d, "val") for d in run.dataset]
    except DataError:
        return []
    files = [file for folder in folders for file in image_files(folder)]
    return [read_image(file).pixels for file in files[: run.validation_images]]


def write_codec(name: str, official: bool, path: Path, learners: nn.Module, step: int) -> None:
    """Writes a codec's checkpoint, and beside it one in the official layout if that is wanted."""
    assert isinstance(learners, Codec)
    facts = {"stage": name, "steps": step, "command": command_line()}
    tables = learners.tables()
    save_checkpoint(path, learners, facts, tables)
    if official:
        save_official(path.with_suffix(".pth.tar"), learners, tables)


def _validate(
    weights: RateDistortion, images: list[Pixels], learners: nn.Module, step: int, log: Log
) -> float:
    """Codes the images for real; logs a record and a few pictures."""
    assert isinstance(learners, Codec)
    results, pictures = validate_codec(learners, images, choose_metrics())
    loss = validation_loss(results, weights)
    log.record("validation", step, {"loss": loss, "levels": [result.to_dict() for result in results]})
    for index, original in enumerate(images[:SAMPLE_PICTURES]):
        shown = [original, *(pictures[level][index] for level in (0, len(results) // 2, len(results) - 1))]
        log.picture(f"image{index}", step, np.concatenate(shown, 1))
    return loss
