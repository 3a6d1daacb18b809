"""How a stage is trained: how long, on how much at once, and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from polc_runtime.errors import UsageError

from .options import Options

SCHEDULES = ("milestones", "cosine")
DECAY = 0.1
"""Factor on the learning rate at each milestone."""


@dataclass(frozen=True)
class Plan(Options):
    """The length of a run, its batches and its learning rate.

    Attributes:
        epochs: passes over the data.
        max_steps: most optimiser steps. Default: as many as the epochs have.
        learning_rate: learning rate of Adam.
        schedule: course of the learning rate: a tenth at each milestone, or a cosine to zero.
        milestones: epochs at which the learning rate falls to a tenth.
        warmup: steps over which the rate rises from zero.
        ema: decay of a moving average of the weights, which is kept instead of them; 0 for none.
        clip_max_norm: largest norm of the gradient; 0 for no limit.
        batch_size: samples a step takes on each device, before accumulation.
        accumulate: batches whose gradients make one step.
        patch_size: side of the training crops in pixels; for a codec a multiple of 64.
        seed: seed of everything random.
    """

    epochs: int = 400
    max_steps: int | None = None
    learning_rate: float = 1e-4
    schedule: str = "milestones"
    milestones: Sequence[int] = (300,)
    warmup: int = 0
    ema: float = 0.0
    clip_max_norm: float = 1.0
    batch_size: int = 8
    accumulate: int = 1
    patch_size: int = 256
    seed: int = 0

    CHOICES: ClassVar = {"schedule": SCHEDULES}
    BOUNDS: ClassVar = {
        **dict.fromkeys(("epochs", "max_steps", "batch_size", "accumulate", "patch_size"), 1),
        **dict.fromkeys(("learning_rate", "warmup", "ema", "clip_max_norm", "seed"), 0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema >= 1:
            raise UsageError(f"ema: expected less than 1, got {self.ema}")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole run.

        Raises:
            UsageError: an epoch has no step.
        """
        if steps_per_epoch < 1:
            samples = self.batch_size * self.accumulate
            raise UsageError(f"fewer samples than one batch ({samples}): lower batch_size or accumulate")
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Factor on the learning rates at step number `step`, from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * step / self.total_steps(steps_per_epoch)))
        epoch = step // steps_per_epoch
        return rise * DECAY ** sum(epoch >= milestone for milestone in self.milestones)


PLANS = {
    "stage1": Plan(epochs=400, milestones=(300,)),
    "stage1-gan": Plan(epochs=400, milestones=(300,)),
    "stage2-cls": Plan(epochs=4, milestones=(3,)),
    "stage2-seg": Plan(epochs=200, milestones=(150,), patch_size=512),
    "pixels-cls": Plan(epochs=30, milestones=(25,), batch_size=64, learning_rate=1e-3),
    "pixels-seg": Plan(epochs=100, milestones=(80,), patch_size=512, learning_rate=1e-3),
}
"""The method's plan of each stage (POLC, ICME 2025); of `pixels-cls` and `pixels-seg`, this project's."""
