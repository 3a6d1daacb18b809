"""The options of `polc-train`, under the official names; their defaults are those of the stages' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

import click

from polc.attention import TRAINING_KERNELS
from polc.families.tinylic.presets import PRESETS

from ..data.vision import AUGMENTATIONS
from ..jobs import codec, vision
from ..jobs.base import ACCELERATORS, PRECISIONS
from ..plan import SCHEDULES


@dataclass(frozen=True)
class Option:
    """One option; its name and default come from the field that it fills.

    Attributes:
        flags: as on the command line, separated by blanks.
        help: one line.
        type: of the value; None for a flag.
        metavar: what help calls the value.
        more: further arguments of `click.Option`.
    """

    flags: str
    help: str
    type: Any = None
    metavar: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def parameter(self, name: str, defaults: Mapping[str, Any]) -> click.Option:
        """The option for the field `name`, with its default in `defaults`."""
        settings = {"help": self.help, "type": self.type, "metavar": self.metavar, **self.more}
        default = defaults.get(name, MISSING)
        if self.type is None:
            settings["is_flag"] = True
        elif default is not MISSING and default is not None:
            settings |= {"default": default, "show_default": True}
        return click.Option([*self.flags.split(), name], **settings)


class Epochs(click.ParamType):
    """Whole numbers behind one another, such as 300,350."""

    name = "epochs"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers; those of a default are numbers already."""
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(int(part) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"expected epochs such as 300,350, got {value!r}", param, ctx)


Choice = click.Choice
PATH = click.Path(path_type=Path)
KERNELS, PRESET_NAMES = Choice(TRAINING_KERNELS), Choice(tuple(PRESETS))
POSITIVE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
NUMBER = click.FloatRange(min=0)

SHARED = {
    "dataset": Option(
        "-d --dataset",
        "The training data; may be repeated.",
        PATH,
        "DIR",
        {"multiple": True, "required": True},
    ),
    "validation": Option(
        "--validation",
        "The validation data. Default: the dataset's val or test folder, if it has one.",
        PATH,
        "DIR",
    ),
    "epochs": Option("-e --epochs", "Passes over the data.", POSITIVE),
    "max_steps": Option("--max-steps --max_steps", "Stop after this many steps.", POSITIVE),
    "learning_rate": Option("-lr --learning-rate --learning_rate", "Learning rate of Adam.", NUMBER),
    "schedule": Option(
        "--schedule",
        "Course of the learning rate: a tenth at each milestone, or a cosine to zero.",
        Choice(SCHEDULES),
    ),
    "milestones": Option(
        "--milestones", "Epochs at which the learning rate falls to a tenth.", Epochs(), "EPOCH,..."
    ),
    "warmup": Option("--warmup", "Steps of rising learning rate.", COUNT),
    "ema": Option(
        "--ema",
        "Decay of a moving average of the weights, which is kept instead of them; 0: none.",
        click.FloatRange(0, 1, max_open=True),
    ),
    "clip_max_norm": Option(
        "--clip-max-norm --clip_max_norm", "Largest norm of the gradient; 0: no limit.", NUMBER
    ),
    "batch_size": Option("--batch-size --batch_size", "Samples a step and device.", POSITIVE),
    "accumulate": Option("--accumulate", "Batches that make one step.", POSITIVE),
    "patch_size": Option(
        "--patch-size --patch_size",
        "Side of the training crops in pixels, a multiple of 64.",
        click.IntRange(min=64),
    ),
    "num_workers": Option(
        "-n --num-workers --num_workers", "Processes that read the data; 0: none but this one.", COUNT
    ),
    "preset": Option("--preset", "Dimensions of a new codec; a checkpoint brings its own.", PRESET_NAMES),
    "attention": Option(
        "--attention",
        "Attention kernel; auto: native for fp32 on the CPU where it was built, else tiled.",
        KERNELS,
    ),
    "precision": Option(
        "--precision",
        "Of the networks' arithmetic; weights and rates stay in fp32.",
        Choice(tuple(PRECISIONS)),
    ),
    "accelerator": Option("--accelerator", "Where to train.", Choice(ACCELERATORS)),
    "devices": Option("--devices", "Devices on this machine (DDP).", POSITIVE),
    "seed": Option("--seed", "Of everything random.", COUNT),
    "pretrained": Option("--pretrained", "Weights to start from.", PATH, "CKPT"),
    "checkpoint": Option(
        "--checkpoint", "A run's folder, to resume it exactly where it stopped.", PATH, "RUN"
    ),
    "tag": Option("--tag", "Name of the run's folder. Default: the stage.", str, "NAME"),
    "save_dir": Option(
        "--save-dir --save_dir",
        "Where runs' folders are made.",
        PATH,
        "DIR",
        {"default": Path("checkpoints"), "show_default": True},
    ),
    "logdir": Option("--logdir", "Also log to TensorBoard, in this folder.", PATH, "DIR"),
    "log_every": Option("--log-every", "Steps from record to record.", POSITIVE),
    "save_every": Option("--save-every", "Steps between saved states. Default: an epoch.", POSITIVE),
    "validate_every": Option("--validate-every", "Steps between validations. Default: an epoch.", POSITIVE),
    "validation_images": Option("--validation-images", "Images of the validation data to use.", POSITIVE),
    "eval_only": Option("--eval-only --eval_only", "Validate, and stop."),
    "official_layout": Option("--official-layout", "Also write the official code's layout (last.pth.tar)."),
    "quiet": Option("-q --quiet", "No progress bar, no records on the terminal."),
}
"""Options of every command, by the field they fill."""

STRATIFIED = Option("--stratified", "Mix the quality levels within a batch.")

CODEC = {
    "perceptual": Option(
        "--perceptual",
        "Perceptual part of the loss; without one, MSE alone with lambdas of its own.",
        Choice(codec.PERCEPTUAL),
    ),
    "lpips_weights": Option(
        "--lpips-weights", "torchvision's VGG-16 weights, for a machine without a network.", PATH, "FILE"
    ),
    "stratified": STRATIFIED,
    "aux_learning_rate": Option(
        "--aux-learning-rate", "Learning rate of the factorised prior's quantiles.", float
    ),
    "entropy_scale": Option(
        "--entropy-scale", "Factor on the learning rate for the entropy networks.", float
    ),
    "prior_scale": Option("--prior-scale", "Factor on the learning rate for the factorised prior.", float),
}
CODEC_INIT = Option(
    "--init",
    "A new codec's weights: random, or principal components of the training images.",
    Choice(codec.INITIAL),
)
DISCRIMINATOR_RATE = Option(
    "-lrd --discriminator-learning-rate", "Learning rate of the discriminators.", float
)

VISION = {
    "weights": Option("--weights", "The vision model's weights. Default: random ones.", str, "timm|FILE"),
    "classes": Option(
        "--classes", "Number of classes. Default: the data's or family's.", click.IntRange(min=2)
    ),
    "augmentation": Option(
        "--augmentation",
        "Of a classification: random parts of photos, or small shifts of thumbnails.",
        Choice(list(AUGMENTATIONS)),
    ),
    "ignore_labels": Option(
        "--ignore-label",
        "Of a segmentation: a label in the masks that means no class, as 255 does; may repeat.",
        click.IntRange(0, 65535),
        more={"multiple": True},
    ),
    "reduce_zero_label": Option(
        "--reduce-zero-label",
        "Of a segmentation: masks count classes from 1, and 0 means no class, as in ADE20K.",
    ),
}
ADAPTER = {
    "task": Option("--task", "Name of the task. Default: the family's.", str, "NAME"),
    "stratified": STRATIFIED,
    "distillation": Option(
        "--distillation",
        "Weight of the feature MSE. Default: 0.01, or 10 of a segmentation.",
        NUMBER,
        "WEIGHT",
    ),
    "init": Option(
        "--init",
        "A new adapter's weights: random, or fitted to the vision model's own stem.",
        Choice(vision.INITIAL),
    ),
}
WEIGHT_DECAY = Option("--weight-decay", "Of AdamW.", NUMBER)


def family(names: Sequence[str]) -> Option:
    """The option that names the vision model, one of `names`."""
    return Option("--family", "Kind of vision model.", Choice(names), more={"required": True})
