"""The commands of `polc-train`: each parses its options into a stage's class and trains that."""

from __future__ import annotations

import inspect
import shlex
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from polc.tasks import FAMILIES
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.cli.console import say

from ..api import evaluate, train
from ..jobs.base import Hardware, RunOptions, Training, TrainingData
from ..jobs.codec import AdversarialTraining, CodecTraining
from ..jobs.vision import AdapterTraining, PixelTraining
from ..plan import Plan
from .options import options_of
from .terminal import INTERRUPTED, Terminal

Group = TypeVar("Group", bound=Any)

STAGE1_EXAMPLES = """\b
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


def _take(kind: type[Group], values: dict[str, Any]) -> Group:
    """Makes a `kind` of those of the values that are its fields, and removes them."""
    names = [field.name for field in fields(kind) if field.name in values]
    made: Group = kind(**{name: values.pop(name) for name in names})
    return made


def _run(kind: type[Training], stage: str, **values: Any) -> int:
    """Trains, or validates; the exit code: 0, or 130 where a signal ended the run early."""
    tag, saves, resumed = (values.pop(name) for name in ("tag", "save_dir", "checkpoint"))
    quiet, only = values.pop("quiet"), values.pop("eval_only")
    values |= {"folder": resumed or saves / (tag or stage), "resume": resumed is not None}
    values["facts"] = {"command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}
    data, run = _take(TrainingData, values), _take(RunOptions, values)
    plan, hardware = _take(Plan, values), _take(Hardware, values)
    training = kind(data, run, plan=plan, hardware=hardware, **values)
    with Terminal(stage, quiet) as terminal:
        if only:
            evaluate(training, terminal)
            return 0
        result = train(training, terminal)
    if result.finished:
        return 0
    say(f"stopped after step {result.steps}; resume with --checkpoint {result.folder}")
    return INTERRUPTED


def _command(
    stage: str, kind: type[Training], task: str | None = None, epilog: str | None = None
) -> click.Command:
    families = [name for name, family in FAMILIES.items() if family.kind == task]
    description = (inspect.getdoc(kind) or "").partition("\n")[0]
    parameters = options_of(stage, kind, families)
    return click.Command(stage, {}, partial(_run, kind, stage), parameters, description, epilog)


stage1 = _command("stage1", CodecTraining, epilog=STAGE1_EXAMPLES)
stage1_gan = _command("stage1-gan", AdversarialTraining, epilog=GAN_EXAMPLES)
stage2_cls = _command("stage2-cls", AdapterTraining, CLASSIFICATION)
stage2_seg = _command("stage2-seg", AdapterTraining, SEGMENTATION)
pixels_cls = _command("pixels-cls", PixelTraining, CLASSIFICATION)
pixels_seg = _command("pixels-seg", PixelTraining, SEGMENTATION)
