"""`polc-train pixels-cls` and `pixels-seg`: vision models on pixels, teachers and baselines of stage 2."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from safetensors.torch import save
from torch import nn

from polc.families.tinylic.presets import preset
from polc.weights import persistent
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.files.outputs import write_file

from ..stages.pixels import PixelClassification, PixelSegmentation
from ..vision import (
    VisionOptions,
    load_data,
    scorer,
    test_samples,
    validate_pixels,
    vision_model,
    vision_options,
)
from .execute import Job, execute
from .options import RunOptions, StageDefaults, run_options

CLASSIFY = StageDefaults(epochs=30, patch=256, milestone=25, batch=64, learning_rate=1e-3)
SEGMENT = StageDefaults(epochs=100, patch=512, milestone=80, batch=8, learning_rate=1e-3)


def _execute(
    name: str,
    stage: type[PixelClassification | PixelSegmentation],
    run: RunOptions,
    vision: VisionOptions,
    weight_decay: float,
) -> int:
    def build() -> Job:
        data = load_data(run, vision)
        task = vision_model(vision, data, preset(run.preset))
        training = stage(task, run.learning_rate, run.clip_max_norm or None, weight_decay)
        samples = test_samples(data, run.validation_images, run.seed)
        score = scorer(task.family)
        validate = partial(validate_pixels, training.predict, score, samples) if samples else None
        settings = {"family": vision.family, "classes": data.classes, "patch": run.patch_size}
        return Job(training, data.train, _write, validate, settings)

    return execute(name, run, build)


def _write(path: Path, learners: nn.Module, step: int) -> None:
    """Writes the vision model alone, as `--weights` reads it."""
    state = {key: value.detach().cpu().contiguous() for key, value in persistent(learners).items()}
    write_file(path, save(state), force=True)


weight_decay = click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Of AdamW."
)


@click.command("pixels-cls")
@run_options(CLASSIFY)
@vision_options(CLASSIFICATION)
@weight_decay
def pixels_cls(run: RunOptions, vision: VisionOptions, weight_decay: float) -> int:
    """Train a classifier on pixels: the teacher that stage2-cls starts from."""
    return _execute("pixels-cls", PixelClassification, run, vision, weight_decay)


@click.command("pixels-seg")
@run_options(SEGMENT)
@vision_options(SEGMENTATION)
@weight_decay
def pixels_seg(run: RunOptions, vision: VisionOptions, weight_decay: float) -> int:
    """Train a segmenter on pixels: the teacher that stage2-seg starts from."""
    return _execute("pixels-seg", PixelSegmentation, run, vision, weight_decay)
