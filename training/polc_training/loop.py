"""The one training loop: every stage, on any device, on one or several of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from polc_runtime.errors import PolcError, UsageError

from .data.loader import Samples, make_loader
from .log import Log
from .plan import Plan
from .stages.base import Batch, Stage
from .state import TrainingState, random_state


class Keeper(Protocol):
    """Puts a run on disk."""

    def keep(
        self, state: TrainingState, learners: nn.Module, best: bool, random_states: list[dict[str, Any]]
    ) -> None:
        """Keeps the run's state and the learners' weights as the last, and as the best if they are."""
        ...


@dataclass(frozen=True)
class Intervals:
    """How often things happen, in steps.

    Attributes:
        log: steps from one record to the next.
        save: steps from one saved state to the next; None for once an epoch.
        validate: steps from one validation to the next; None for once an epoch.
    """

    log: int = 50
    save: int | None = None
    validate: int | None = None


Validate = Callable[[nn.Module, int], float]
"""(learners, step) -> validation loss; logs what it finds."""


class Trainer:
    """Runs a stage to the end of its plan, from the start or from a saved state.

    Args:
        fabric: devices and precision, launched.
        stage: what is trained.
        dataset: what on.
        plan: how long.
        log: takes records.
        keeper: puts the run on disk.
        validate: None for no validation.
        intervals: how often.
        workers: processes that read data.
        settings: facts that a resumed run must share.
    """

    def __init__(
        self,
        fabric: Fabric,
        stage: Stage,
        dataset: Samples,
        plan: Plan,
        log: Log,
        keeper: Keeper,
        validate: Validate | None = None,
        intervals: Intervals | None = None,
        workers: int = 0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.fabric, self.stage, self.dataset, self.plan = fabric, stage, dataset, plan
        self.log, self.keeper, self.validate, self.workers = log, keeper, validate, workers
        self.intervals = intervals or Intervals()
        for parameter in stage.parameters():
            parameter.requires_grad_(False)
        for objective in stage.objectives.values():
            for parameter in objective.parameters():
                parameter.requires_grad_(True)
        names = list(stage.objectives)
        optimizers = [stage.objectives[name].make_optimizer() for name in names]
        self.base_rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in zip(names, optimizers, strict=True)
        }
        self.module, *wrapped = fabric.setup(stage, *optimizers)
        self.optimizers = dict(zip(names, wrapped, strict=True))
        self.state = TrainingState(
            stage, dict(zip(names, optimizers, strict=True)), self._average(), settings=settings or {}
        )
        self.steps_per_epoch = len(self._loader(0, 0)) // plan.accumulate
        self.total = plan.total_steps(self.steps_per_epoch)

    def run(self) -> bool:
        """Trains to the end; False where SIGINT or SIGTERM ended it early, its state saved."""
        progress = self.state.progress
        self.module.train()
        with _interrupts() as interrupted:
            if self.fabric.is_global_zero:
                self.log.start(progress.step, self.total, type(self.stage).__name__)
            while progress.step < self.total:
                for batches in self._epoch():
                    self._log(self._step(batches))
                    progress.step += 1
                    if self._agreed(bool(interrupted)):
                        self._save(best=False)
                        return False
                    self._after_step()
        return True

    def evaluate(self) -> None:
        """Validates, and nothing else.

        Raises:
            UsageError: there are no validation data.
        """
        if self.validate is None:
            raise UsageError("there is nothing to validate on: name it by --validation")
        self._validated()

    def learners(self) -> nn.Module:
        """The weights to keep: averaged, where an average is kept."""
        average = self.state.average
        return self.stage.learners() if average is None else cast(nn.Module, average.module)

    def _average(self) -> AveragedModel | None:
        if not self.plan.ema:
            return None
        return AveragedModel(self.stage.learners(), multi_avg_fn=get_ema_multi_avg_fn(self.plan.ema))

    def _loader(self, epoch: int, start_batch: int) -> Any:
        return make_loader(
            self.dataset,
            self.plan.batch_size,
            self.plan.seed,
            epoch,
            start_batch,
            self.workers,
            self.fabric.global_rank,
            self.fabric.world_size,
        )

    def _epoch(self) -> Iterator[list[Batch]]:
        """What is left of the present epoch, the batches of one step at a time."""
        epoch, done = divmod(self.state.progress.step, self.steps_per_epoch)
        count = min(self.steps_per_epoch - done, self.total - self.state.progress.step)
        batches = iter(self._loader(epoch, done * self.plan.accumulate))
        for _ in range(count):
            taken = [next(batches) for _ in range(self.plan.accumulate)]
            yield [self.fabric.to_device(tuple(batch)) for batch in taken]

    def _step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """One step of every objective whose turn it is; the means of what they report."""
        found: dict[str, float] = {}
        step = self.state.progress.step
        factor = self.plan.factor(step, self.steps_per_epoch)
        for name in self.stage.turn(step):
            objective = self.stage.objectives[name]
            rates = self.base_rates[name]
            for group, rate in zip(self.optimizers[name].param_groups, rates, strict=True):
                group["lr"] = rate * (factor if objective.scheduled else 1.0)
            parts = self._gradients(name, batches)
            if objective.clip is not None:
                nn.utils.clip_grad_norm_(list(objective.parameters()), objective.clip)
            self.optimizers[name].step()
            self._clear_gradients()
            found |= {(key if key != "loss" else f"{name}_loss"): value for key, value in parts.items()}
        if self.state.average is not None:
            self.state.average.update_parameters(self.stage.learners())
        return found

    def _gradients(self, name: str, batches: Sequence[Batch]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for index, batch in enumerate(batches):
            waits = index + 1 < len(batches)
            with self.fabric.no_backward_sync(self.module, enabled=waits):
                losses = self.module(name, batch)
                if not torch.isfinite(losses["loss"]):
                    raise PolcError(
                        f"the {name} loss of step {self.state.progress.step} is not finite; the last saved "
                        "state is kept: lower the learning rate, or train in fp32"
                    )
                self.fabric.backward(losses["loss"] / len(batches))
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + float(value) / len(batches)
        return sums

    def _clear_gradients(self) -> None:
        """Forgets every gradient: an objective may leave some on parameters of another."""
        for parameter in self.stage.parameters():
            parameter.grad = None

    def _log(self, losses: dict[str, float]) -> None:
        if not self.fabric.is_global_zero:
            return
        self.log.advance(losses)
        if (self.state.progress.step + 1) % self.intervals.log == 0:
            self.log.record("train", self.state.progress.step + 1, {"time": time.time(), **losses})

    def _after_step(self) -> None:
        step, last = self.state.progress.step, self.state.progress.step == self.total
        best = False
        if self.validate is not None and (
            last or step % (self.intervals.validate or self.steps_per_epoch) == 0
        ):
            best = self._validated()
        if best or last or step % (self.intervals.save or self.steps_per_epoch) == 0:
            self._save(best)

    def _validated(self) -> bool:
        """Validates on the first process; whether the loss is the least so far."""
        assert self.validate is not None
        loss = 0.0
        if self.fabric.is_global_zero:
            self.module.eval()
            with torch.random.fork_rng(), torch.no_grad(), self._averaged():
                loss = self.validate(self.stage.learners(), self.state.progress.step)
            self.module.train()
        loss = self.fabric.broadcast(loss)
        before = self.state.progress.best
        if before is not None and loss >= before:
            return False
        self.state.progress.best = loss
        return True

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Has the stage's learners hold the weights that are kept, inside."""
        learners, kept = self.stage.learners(), self.learners()
        if kept is learners:
            yield
            return
        before = {key: value.clone() for key, value in learners.state_dict().items()}
        learners.load_state_dict(kept.state_dict())
        try:
            yield
        finally:
            learners.load_state_dict(before)

    def _save(self, best: bool) -> None:
        states: list[Any] = [random_state()]
        if self.fabric.world_size > 1:
            states = [None] * self.fabric.world_size
            torch.distributed.all_gather_object(states, random_state())
        if self.fabric.is_global_zero:
            self.state.progress.records = self.log.records
            self.keeper.keep(self.state, self.learners(), best, states)
        self.fabric.barrier()

    def _agreed(self, interrupted: bool) -> bool:
        """Whether any process was told to stop."""
        if self.fabric.world_size == 1:
            return interrupted
        told = cast(Tensor, self.fabric.all_reduce(torch.tensor(float(interrupted)), reduce_op="sum"))
        return float(told) > 0


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; a second one of either kills."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
