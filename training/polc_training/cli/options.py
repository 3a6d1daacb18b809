"""The options that every stage's command shares, each declared once, under the official names."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import click

from polc.attention import TRAINING_KERNELS
from polc.families.tinylic.presets import PRESETS
from polc_runtime.cli.options import Decorator, grouped

from ..plan import SCHEDULES

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Names here -> Lightning Fabric's."""


@dataclass(frozen=True)
class StageDefaults:
    """What differs between the stages' options (POLC, ICME 2025).

    Attributes:
        epochs: passes over the data.
        patch: side of the crops in pixels.
        milestone: epoch at which the learning rate falls.
        batch: samples a step.
        learning_rate: of Adam.
    """

    epochs: int
    patch: int
    milestone: int
    batch: int = 8
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class RunOptions:
    """The shared options' values; see the commands' help."""

    dataset: tuple[Path, ...]
    validation: Path | None
    epochs: int
    max_steps: int | None
    learning_rate: float
    schedule: str
    milestones: str
    warmup: int
    ema: float
    clip_max_norm: float
    batch_size: int
    accumulate: int
    patch_size: int
    num_workers: int
    preset: str
    attention: str
    precision: str
    accelerator: str
    devices: int
    seed: int
    pretrained: Path | None
    checkpoint: Path | None
    tag: str | None
    save_dir: Path
    logdir: Path | None
    log_every: int
    save_every: int | None
    validate_every: int | None
    validation_images: int
    eval_only: bool
    official_layout: bool
    quiet: bool


def _numbers(minimum: float) -> click.FloatRange:
    return click.FloatRange(min=minimum)


def _options(defaults: StageDefaults) -> dict[str, Decorator]:
    """Name in `RunOptions` -> the option."""
    path = click.Path(path_type=Path)
    positive = click.IntRange(min=1)
    make = functools.partial(click.option, show_default=True)
    return {
        "dataset": make(
            "-d",
            "--dataset",
            type=path,
            multiple=True,
            required=True,
            metavar="DIR",
            help="The training data; may be repeated.",
        ),
        "validation": make(
            "--validation",
            type=path,
            metavar="DIR",
            help="The validation data. Default: the dataset's val or test folder, if it has one.",
        ),
        "epochs": make(
            "-e", "--epochs", type=positive, default=defaults.epochs, help="Passes over the data."
        ),
        "max_steps": make("--max-steps", "--max_steps", type=positive, help="Stop after so many steps."),
        "learning_rate": make(
            "-lr",
            "--learning-rate",
            "--learning_rate",
            type=_numbers(0),
            default=defaults.learning_rate,
            help="Learning rate of Adam.",
        ),
        "schedule": make(
            "--schedule",
            type=click.Choice(SCHEDULES),
            default="milestones",
            help="Course of the learning rate: a tenth at each milestone, or a cosine to zero.",
        ),
        "milestones": make(
            "--milestones",
            default=str(defaults.milestone),
            metavar="EPOCH,...",
            help="Epochs at which the learning rate falls to a tenth.",
        ),
        "warmup": make(
            "--warmup", type=click.IntRange(min=0), default=0, help="Steps of rising learning rate."
        ),
        "ema": make(
            "--ema",
            type=click.FloatRange(0, 1, max_open=True),
            default=0.0,
            help="Decay of a moving average of the weights, which is kept instead of them; 0: none.",
        ),
        "clip_max_norm": make(
            "--clip-max-norm",
            "--clip_max_norm",
            type=_numbers(0),
            default=1.0,
            help="Largest norm of the gradient; 0: no limit.",
        ),
        "batch_size": make(
            "--batch-size",
            "--batch_size",
            type=positive,
            default=defaults.batch,
            help="Samples a step and device.",
        ),
        "accumulate": make("--accumulate", type=positive, default=1, help="Batches that make one step."),
        "patch_size": make(
            "--patch-size",
            "--patch_size",
            type=click.IntRange(min=64),
            default=defaults.patch,
            help="Side of the training crops in pixels, a multiple of 64.",
        ),
        "num_workers": make(
            "-n",
            "--num-workers",
            "--num_workers",
            type=click.IntRange(min=0),
            default=2,
            help="Processes that read the data; 0: none but this one.",
        ),
        "preset": make(
            "--preset",
            type=click.Choice(list(PRESETS)),
            default="polc-base",
            help="Dimensions of a new codec; a checkpoint brings its own.",
        ),
        "attention": make(
            "--attention",
            type=click.Choice(list(TRAINING_KERNELS)),
            default="auto",
            help="Attention kernel; auto: native for fp32 on the CPU where it was built, else tiled.",
        ),
        "precision": make(
            "--precision",
            type=click.Choice(list(PRECISIONS)),
            default="fp32",
            help="Of the networks' arithmetic; weights and rates stay in fp32.",
        ),
        "accelerator": make(
            "--accelerator",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default="auto",
            help="Where to train.",
        ),
        "devices": make("--devices", type=positive, default=1, help="Devices on this machine (DDP)."),
        "seed": make("--seed", type=click.IntRange(min=0), default=0, help="Of everything random."),
        "pretrained": make("--pretrained", type=path, metavar="CKPT", help="Weights to start from."),
        "checkpoint": make(
            "--checkpoint",
            type=path,
            metavar="RUN",
            help="A run's folder, to go on exactly where it stopped.",
        ),
        "tag": make("--tag", metavar="NAME", help="Name of the run's folder. Default: the stage."),
        "save_dir": make(
            "--save-dir",
            "--save_dir",
            type=path,
            default=Path("checkpoints"),
            metavar="DIR",
            help="Where runs' folders are made.",
        ),
        "logdir": make("--logdir", type=path, metavar="DIR", help="Also log to TensorBoard, in this folder."),
        "log_every": make("--log-every", type=positive, default=50, help="Steps from record to record."),
        "save_every": make(
            "--save-every", type=positive, help="Steps between saved states. Default: an epoch."
        ),
        "validate_every": make(
            "--validate-every", type=positive, help="Steps between validations. Default: an epoch."
        ),
        "validation_images": make(
            "--validation-images", type=positive, default=8, help="Images of the validation data to use."
        ),
        "eval_only": make("--eval-only", "--eval_only", is_flag=True, help="Validate, and stop."),
        "official_layout": make(
            "--official-layout", is_flag=True, help="Also write the official code's layout (last.pth.tar)."
        ),
        "quiet": make("-q", "--quiet", is_flag=True, help="No progress bar, no records on the terminal."),
    }


def run_options(defaults: StageDefaults) -> Decorator:
    """Declares the shared options; the command gets them as one `RunOptions` called `run`."""
    return grouped("run", RunOptions, _options(defaults))
