"""`polc-train stage2-cls` and `stage2-seg`: the adapter between a frozen codec and a frozen vision model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from torch import nn

from polc import codec_id
from polc.attention import set_attention_kernel
from polc.checkpoint import CLASSES, Checkpoint, load_checkpoint, save_checkpoint, save_official
from polc.families.tinylic.family import with_levels
from polc.tasks import TaskModel
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.cli.console import say
from polc_runtime.cli.options import grouped

from ..data.loader import make_loader
from ..initialise_adapter import initialise_adapter
from ..rate_distortion import lambdas_of
from ..stages.stage2 import Stage2, Stage2Classification, Stage2Segmentation
from ..vision import (
    VisionData,
    VisionOptions,
    load_data,
    named_classes,
    resolved,
    scorer,
    test_samples,
    validate_latents,
    vision_model,
    vision_options,
)
from .execute import Job, command_line, execute
from .options import RunOptions, StageDefaults, run_options

CLASSIFY = StageDefaults(epochs=4, patch=256, milestone=3)
INITIAL_IMAGES = 64
"""Images that the closed-form initialisation looks at."""
SEGMENT = StageDefaults(epochs=200, patch=512, milestone=150)


@dataclass(frozen=True)
class AdapterOptions:
    """The options of stage 2; see its commands' help."""

    task_name: str | None
    stratified: bool
    distillation: float | None
    initial: str


def _execute(
    name: str, stage: type[Stage2], run: RunOptions, vision: VisionOptions, adapter: AdapterOptions
) -> int:
    def build() -> Job:
        data = load_data(run, vision)
        checkpoint = load_checkpoint(resolved(run.pretrained, "the codec's checkpoint"))
        codec = with_levels(checkpoint.codec)
        task = vision_model(vision, data, codec.config)
        for model in (codec, task):
            set_attention_kernel(model, run.attention)
        training = stage(
            codec,
            task,
            run.learning_rate,
            run.clip_max_norm or None,
            adapter.distillation,
            lambdas_of(True, codec.config.levels),
            adapter.stratified,
        )
        if adapter.initial == "fit" and run.checkpoint is None:
            loader = make_loader(data.train, INITIAL_IMAGES, seed=run.seed, drop_last=False)
            left = initialise_adapter(training, next(iter(loader))[0])
            say(f"adapter fitted: {100 * left:.1f}% of the variance of the stem's output is left")
        samples = test_samples(data, run.validation_images, run.seed)
        validate = None
        if samples:
            validate = partial(validate_latents, codec, task, scorer(task.family), samples)
        settings = {"family": vision.family, "classes": data.classes, "patch": run.patch_size}
        settings["codec"] = codec_id(codec).hex()
        task_name = adapter.task_name or task.family.name
        write = partial(_write, name, task_name, checkpoint, task, data, run.official_layout)
        return Job(training, data.train, write, validate, settings)

    return execute(name, run, build)


def _write(
    stage: str,
    name: str,
    start: Checkpoint,
    task: TaskModel,
    data: VisionData,
    official: bool,
    path: Path,
    learners: nn.Module,
    step: int,
) -> None:
    """Writes codec, adapter and vision model, and the tasks that the codec's checkpoint had already."""
    whole = TaskModel(task.family, learners, task.model)  # type: ignore[arg-type]
    facts = {**start.metadata, "stage": stage, "steps": step, "command": command_line()}
    facts[CLASSES] = {**start.classes, **named_classes(data, name)}
    tables = start.tables()[0]
    save_checkpoint(path, start.codec, facts, tables, {**start.tasks, name: whole})
    if official:
        save_official(path.with_suffix(".pth.tar"), start.codec, tables, whole)


adapter_options = grouped(
    "adapter",
    AdapterOptions,
    {
        "task_name": click.option(
            "--task", "task_name", metavar="NAME", help="Name of the task. Default: the family's."
        ),
        "stratified": click.option(
            "--stratified", is_flag=True, help="Mix the quality levels within a batch."
        ),
        "distillation": click.option(
            "--distillation",
            type=click.FloatRange(min=0),
            metavar="WEIGHT",
            help="Weight of the feature MSE. Default: 0.01, or 10 of a segmentation.",
        ),
        "initial": click.option(
            "--init",
            "initial",
            type=click.Choice(["random", "fit"]),
            default="random",
            show_default=True,
            help="A new adapter's weights: random, or fitted to the vision model's own stem.",
        ),
    },
)


@click.command("stage2-cls")
@run_options(CLASSIFY)
@vision_options(CLASSIFICATION)
@adapter_options
def stage2_cls(run: RunOptions, vision: VisionOptions, adapter: AdapterOptions) -> int:
    """Train an adapter that classifies from the codec's latents; codec and classifier are frozen."""
    return _execute("stage2-cls", Stage2Classification, run, vision, adapter)


@click.command("stage2-seg")
@run_options(SEGMENT)
@vision_options(SEGMENTATION)
@adapter_options
def stage2_seg(run: RunOptions, vision: VisionOptions, adapter: AdapterOptions) -> int:
    """Train an adapter that segments from the codec's latents; codec and segmenter are frozen."""
    return _execute("stage2-seg", Stage2Segmentation, run, vision, adapter)
