"""Runs a stage's command: devices, folder, log and loop around what the stage brings."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from polc_runtime.cli.console import say
from polc_runtime.errors import UsageError

from ..data.loader import Samples
from ..log import Log
from ..loop import Intervals, Trainer
from ..plan import Plan
from ..runs import RunFolder, check_folder
from ..stages.base import Stage
from ..state import load_state
from .options import PRECISIONS, RunOptions

Validation = Callable[[nn.Module, int, Log], float]
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True)
class Job:
    """What a stage brings to its run.

    Attributes:
        stage: the module to train.
        dataset: what to train on.
        write: (path, learners, step) writes a checkpoint.
        validate: (learners, step, log) -> validation loss; None where there are no data for it.
        settings: facts that a resumed run must share, JSON-able.
    """

    stage: Stage
    dataset: Samples
    write: Callable[[Path, nn.Module, int], None]
    validate: Validation | None
    settings: dict[str, Any]


def make_plan(run: RunOptions) -> Plan:
    """The plan that the options describe.

    Raises:
        UsageError: the milestones are no list of epochs.
    """
    try:
        milestones = tuple(int(part) for part in run.milestones.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--milestones: expected epochs such as 300,350, got {run.milestones!r}") from None
    return Plan(
        run.epochs,
        run.max_steps,
        run.batch_size,
        run.accumulate,
        milestones,
        run.schedule,
        run.warmup,
        run.ema,
        run.seed,
    )


def command_line() -> str:
    """The command that made this run."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def execute(name: str, run: RunOptions, build: Callable[[], Job]) -> int:
    """Trains; the exit code: 0, or 130 where a signal ended the run early.

    Args:
        name: of the stage.
        run: the options.
        build: makes the job, after the seed is set.
    """
    plan = make_plan(run)
    fabric = _fabric(run)
    path = run.checkpoint or run.save_dir / (run.tag or name)
    check_folder(path, resume=run.checkpoint is not None)
    torch.manual_seed(run.seed)
    job = build()
    torch.manual_seed(run.seed + fabric.global_rank)
    folder = RunFolder(path, job.write)
    with _log(run, folder, fabric.is_global_zero) as log:
        return _train(name, run, plan, fabric, job, folder, log)


def _log(run: RunOptions, folder: RunFolder, first: bool) -> Log:
    """The log; only the first process writes one."""
    if not first:
        return Log(None, quiet=True)
    return Log(folder.log, run.logdir, folder.samples, run.quiet)


def _train(
    name: str, run: RunOptions, plan: Plan, fabric: Fabric, job: Job, folder: RunFolder, log: Log
) -> int:
    validate = None if job.validate is None else partial(_validate, job.validate, log)
    settings = {**job.settings, "stage": name, "batch_size": plan.batch_size, "seed": plan.seed}
    settings |= {"accumulate": plan.accumulate, "processes": fabric.world_size, "samples": len(job.dataset)}
    trainer = Trainer(
        fabric,
        job.stage,
        job.dataset,
        plan,
        log,
        folder,
        validate,
        Intervals(run.log_every, run.save_every, run.validate_every),
        run.num_workers,
        settings,
    )
    if run.checkpoint is not None:
        load_state(folder.state, trainer.state, fabric.global_rank)
        log.cut(trainer.state.progress.records)
    if run.eval_only:
        trainer.evaluate()
        return 0
    if trainer.run():
        return 0
    say(f"stopped after step {trainer.state.progress.step}; go on with --checkpoint {folder.folder}")
    return INTERRUPTED


def _validate(validate: Validation, log: Log, learners: nn.Module, step: int) -> float:
    return validate(learners, step, log)


def _fabric(run: RunOptions) -> Fabric:
    strategy: Any = DDPStrategy(find_unused_parameters=True) if run.devices > 1 else "auto"
    fabric = Fabric(
        accelerator=run.accelerator,
        devices=run.devices,
        strategy=strategy,
        precision=PRECISIONS[run.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric
