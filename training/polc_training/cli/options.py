"""The options of `polc-train`: one for each field of a stage's classes, as these describe it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from ..jobs.base import Hardware, RunOptions, Training, TrainingData
from ..options import Options
from ..plan import PLANS, Plan


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


PATH = click.Path(path_type=Path)
TYPES = {"int": int, "float": float, "str": str, "PathLike": PATH}
"""Types of options by the fields' annotations."""

OTHER_NAMES = {
    "dataset": ("-d",),
    "epochs": ("-e",),
    "num_workers": ("-n", "--num_workers"),
    "learning_rate": ("-lr", "--learning_rate"),
    "discriminator_learning_rate": ("-lrd",),
    **{name: (f"--{name}",) for name in ("max_steps", "clip_max_norm", "batch_size", "patch_size")},
}
"""Short and official names of options."""

SPECIAL: dict[str, dict[str, Any]] = {
    "dataset": {"type": PATH, "multiple": True, "required": True, "metavar": "DIR"},
    "milestones": {"type": Epochs(), "metavar": "EPOCH,..."},
    "ignore_labels": {"type": click.IntRange(0, 65535), "multiple": True},
    "family": {"required": True},
}
"""What the types of fields do not say of an option."""

OTHERS = (
    click.Option(
        ["--checkpoint"],
        type=PATH,
        metavar="RUN",
        help="A run's folder, to resume it exactly where it stopped.",
    ),
    click.Option(["--tag"], metavar="NAME", help="Name of the run's folder. Default: the stage."),
    click.Option(
        ["--save-dir", "--save_dir"],
        type=PATH,
        default=Path("checkpoints"),
        show_default=True,
        metavar="DIR",
        help="Where runs' folders are made.",
    ),
    click.Option(["--eval-only", "--eval_only"], is_flag=True, help="Validate, and stop."),
    click.Option(["-q", "--quiet"], is_flag=True, help="No progress bar, no records on the terminal."),
)
"""Options that are no field: which folder, and what to show."""

NO_OPTIONS = {"data", "run", "plan", "hardware", "folder", "resume", "facts"}
"""Fields that are no option."""


def options_of(stage: str, kind: type[Training], families: list[str]) -> list[click.Parameter]:
    """Every option of a stage's command, with the method's defaults for that stage.

    Args:
        stage: a name in `PLANS`.
        kind: the stage's class.
        families: of vision models that it may name.
    """
    found: list[click.Parameter] = []
    for group in (TrainingData, Plan, Hardware, RunOptions, kind):
        described = dict(descriptions(group))
        for each in fields(group):
            if each.init and each.name not in NO_OPTIONS:
                default = getattr(PLANS[stage], each.name) if group is Plan else each.default
                choices = families if each.name == "family" else group.CHOICES.get(each.name)
                found.append(_option(each, default, choices, described.get(each.name, "")))
    return [*found, *OTHERS]


def descriptions(kind: type[Options]) -> Iterator[tuple[str, str]]:
    """What the docstrings of a class and its parents say of each field, under `Attributes:`."""
    for each in reversed(kind.__mro__):
        _, _, attributes = (inspect.getdoc(each) or "").partition("Attributes:\n")
        for entry in re.split(r"\n {4}(?=\w+: )", "\n" + attributes.partition("\n\n")[0])[1:]:
            name, _, text = entry.partition(": ")
            yield name, re.sub(r"\s+", " ", text)


def _option(each: Field[Any], default: Any, choices: Any, text: str) -> click.Option:
    long = "--ignore-label" if each.name == "ignore_labels" else f"--{each.name.replace('_', '-')}"
    settings: dict[str, Any] = {"help": text[:1].upper() + text[1:]}
    annotation = str(each.type).removesuffix(" | None")
    if annotation == "bool":
        settings["is_flag"] = True
    else:
        settings["type"] = click.Choice(choices) if choices else TYPES.get(annotation)
        if default not in (MISSING, None, ()):
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            settings |= {"default": shown, "show_default": True}
    settings |= SPECIAL.get(each.name, {})
    if "multiple" in settings:
        settings["help"] += " May be repeated."
    return click.Option([long, *OTHER_NAMES.get(each.name, ()), each.name], **settings)
