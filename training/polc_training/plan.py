"""How a stage is trained: how long, on how much at once, and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from polc_runtime.bitstream.geometry import PAD_MULTIPLE
from polc_runtime.errors import UsageError

SCHEDULES = ("milestones", "cosine")
DECAY = 0.1
"""Factor on the learning rate at each milestone."""


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raises UsageError, with the choices there are, unless `value` is one of them."""
    if value not in choices:
        raise UsageError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


@dataclass(frozen=True)
class Plan:
    """The length of a run, its batches and its learning rate.

    Attributes:
        epochs: passes over the data.
        max_steps: most optimiser steps; None for as many as the epochs have.
        learning_rate: of Adam.
        schedule: "milestones", or "cosine" from the full rate to zero at the last step.
        milestones: epochs at which the learning rate falls to a tenth.
        warmup: steps over which the rate rises from zero.
        ema: decay of an exponential moving average of the weights; 0 for none.
        clip_max_norm: largest norm of the gradient; 0 for no limit.
        batch_size: samples a step takes on each device, before accumulation.
        accumulate: batches whose gradients make one step.
        patch_size: side of the training crops in pixels.
        seed: of everything random.

    Raises:
        UsageError: a number is out of its range, or no schedule has that name.
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

    def __post_init__(self) -> None:
        check_choice("schedule", self.schedule, SCHEDULES)
        least = {"epochs": 1, "batch_size": 1, "accumulate": 1, "patch_size": 1, "max_steps": 1}
        least |= {"learning_rate": 0, "warmup": 0, "ema": 0, "clip_max_norm": 0, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                raise UsageError(f"{name}: expected {bound} or more, got {value}")
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

    def check_patch(self) -> None:
        """Raises UsageError unless the codec takes crops of `patch_size` as they are."""
        if self.patch_size % PAD_MULTIPLE:
            raise UsageError(f"patch_size: expected a multiple of {PAD_MULTIPLE}, got {self.patch_size}")


PLANS = {
    "stage1": Plan(epochs=400, milestones=(300,)),
    "stage1-gan": Plan(epochs=400, milestones=(300,)),
    "stage2-cls": Plan(epochs=4, milestones=(3,)),
    "stage2-seg": Plan(epochs=200, milestones=(150,), patch_size=512),
    "pixels-cls": Plan(epochs=30, milestones=(25,), batch_size=64, learning_rate=1e-3),
    "pixels-seg": Plan(epochs=100, milestones=(80,), patch_size=512, learning_rate=1e-3),
}
"""The method's plan of each stage (POLC, ICME 2025); of `pixels-cls` and `pixels-seg`, this project's."""
