"""How long to train and how fast: epochs, steps, and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from polc_runtime.errors import UsageError

SCHEDULES = ("milestones", "cosine")
DECAY = 0.1
"""Factor on the learning rate at each milestone."""


@dataclass(frozen=True)
class Plan:
    """The length of a run and its schedule.

    Attributes:
        epochs: passes over the data.
        max_steps: most optimiser steps; None for as many as the epochs have.
        batch_size: samples a step takes on each device, before accumulation.
        accumulate: batches whose gradients make one step.
        milestones: epochs at which the learning rate falls to a tenth.
        schedule: "milestones", or "cosine" from the full rate to zero at the last step.
        warmup: steps over which the rate rises from zero.
        ema: decay of an exponential moving average of the weights; 0 for none.
        seed: of everything random.
    """

    epochs: int
    max_steps: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    milestones: Sequence[int] = ()
    schedule: str = "milestones"
    warmup: int = 0
    ema: float = 0.0
    seed: int = 0

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimiser steps of the whole run.

        Raises:
            UsageError: an epoch has no step.
        """
        if steps_per_epoch < 1:
            raise UsageError(
                f"the data make no batch of {self.batch_size * self.accumulate}: lower --batch_size or "
                "--accumulate"
            )
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def factor(self, step: int, steps_per_epoch: int) -> float:
        """Factor on the learning rates at step number `step`, from 0."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if self.schedule == "cosine":
            return rise * 0.5 * (1 + math.cos(math.pi * step / self.total_steps(steps_per_epoch)))
        epoch = step // steps_per_epoch
        return rise * DECAY ** sum(epoch >= milestone for milestone in self.milestones)
