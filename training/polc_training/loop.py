"""The one training loop: every stage, on any device, on one or several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from polc_runtime.errors import PolcError, UsageError

from .data.loader import Loading, make_loader
from .jobs.base import Training, TrainingJob, Validation
from .log import Log
from .runs import RunFolder
from .stages.base import Batch
from .state import TrainingState, random_state


class Trainer:
    """Runs a job to the end of its plan, from the start or from a saved state.

    Args:
        fabric: devices and precision, launched.
        training: what was asked for.
        job: what is trained.
        log: takes records.
        folder: keeps the run.
    """

    def __init__(
        self, fabric: Fabric, training: Training, job: TrainingJob, log: Log, folder: RunFolder
    ) -> None:
        self.fabric, self.plan, self.run_options = fabric, training.plan, training.run
        self.job, self.stage, self.log, self.folder = job, job.stage, log, folder
        plan, stage = training.plan, job.stage
        self.loading = Loading(
            plan.batch_size,
            plan.seed,
            training.data.num_workers,
            fabric.global_rank,
            fabric.world_size,
        )
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
        settings = {**job.settings, "stage": training.stage, "samples": len(job.dataset)}
        settings |= {"batch_size": plan.batch_size, "accumulate": plan.accumulate, "seed": plan.seed}
        settings |= {"patch": plan.patch_size, "processes": fabric.world_size}
        self.state = TrainingState(
            stage, dict(zip(names, optimizers, strict=True)), self._average(), settings=settings
        )
        self.steps_per_epoch = len(make_loader(job.dataset, self.loading)) // plan.accumulate
        self.total = plan.total_steps(self.steps_per_epoch)

    def run(self) -> None:
        """Trains to the end, or until the listener stops it; the state is saved either way."""
        progress, listener = self.state.progress, self.log.listener
        self.module.train()
        listener.start(progress.step, self.total, self.fabric.global_rank)
        if progress.step == 0 and self.job.start and self.fabric.is_global_zero:
            self.log.record("start", 0, self.job.start)
        if self._validation_due():  # the run was stopped between a step and its validation
            self._after_step()
        while progress.step < self.total:
            for batches in self._epoch():
                self._log(self._step(batches))
                progress.step += 1
                if self._agreed(listener.stop()) and progress.step < self.total:
                    self._save(best=False)
                    return
                self._after_step()

    def evaluate(self) -> Validation:
        """Validates, and nothing else; what the first process finds.

        Raises:
            UsageError: there are no validation data.
        """
        if not self.job.samples:
            raise UsageError("there is nothing to validate on: name the data as validation")
        return self._validated()

    def learners(self) -> nn.Module:
        """The weights to keep: averaged, where an average is kept."""
        average = self.state.average
        return self.stage.learners() if average is None else cast(nn.Module, average.module)

    def _average(self) -> AveragedModel | None:
        if not self.plan.ema:
            return None
        return AveragedModel(self.stage.learners(), multi_avg_fn=get_ema_multi_avg_fn(self.plan.ema))

    def _epoch(self) -> Iterator[list[Batch]]:
        """What is left of the present epoch, the batches of one step at a time."""
        epoch, done = divmod(self.state.progress.step, self.steps_per_epoch)
        count = min(self.steps_per_epoch - done, self.total - self.state.progress.step)
        loader = make_loader(self.job.dataset, self.loading, epoch, done * self.plan.accumulate)
        batches = iter(loader)
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
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(batches)
        return sums

    def _clear_gradients(self) -> None:
        """Forgets every gradient: an objective may leave some on parameters of another."""
        for parameter in self.stage.parameters():
            parameter.grad = None

    def _log(self, losses: dict[str, float]) -> None:
        if not self.fabric.is_global_zero:
            return
        self.log.listener.advance(losses)
        if (self.state.progress.step + 1) % self.run_options.log_every == 0:
            self.log.record("train", self.state.progress.step + 1, losses)

    def _due(self, every: int | None) -> bool:
        """Whether something is due that happens every `every` steps, or once an epoch, and at the end."""
        step = self.state.progress.step
        return step == self.total or step % (every or self.steps_per_epoch) == 0

    def _validation_due(self) -> bool:
        progress = self.state.progress
        unseen = progress.validated < progress.step
        return bool(self.job.samples) and unseen and self._due(self.run_options.validate_every)

    def _after_step(self) -> None:
        progress, before = self.state.progress, self.state.progress.best
        if self._validation_due():
            self._validated()
        best = progress.best != before
        if best or self._due(self.run_options.save_every):
            self._save(best)

    def _validated(self) -> Validation:
        """Validates on the first process, and notes the loss if it is the least so far."""
        progress, found = self.state.progress, None
        if self.fabric.is_global_zero:
            self.module.eval()
            with torch.random.fork_rng(), torch.no_grad(), self._averaged():
                found = self.job.validate(self.stage.learners())
            self.module.train()
            self.log.record("validation", progress.step, found.record)
            for name, pixels in found.images.items():
                self.log.image(name, progress.step, pixels)
            found = Validation(found.loss, found.record)
        found = cast(Validation, self.fabric.broadcast(found))
        progress.validated = progress.step
        if progress.best is None or found.loss < progress.best:
            progress.best = found.loss
        return found

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The stage's learners hold the weights that are kept, inside."""
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
            self.folder.keep(self.state, self.learners(), best, states)
        self.fabric.barrier()

    def _agreed(self, stop: bool) -> bool:
        """Whether any process wants to stop."""
        if self.fabric.world_size == 1:
            return stop
        wishes = cast(Tensor, self.fabric.all_reduce(torch.tensor(float(stop)), reduce_op="sum"))
        return float(wishes) > 0
