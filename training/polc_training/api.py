"""Training from Python: what the commands of `polc-train` call.

An example, on two images of noise:

    >>> import tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from polc_training import CodecTraining, Hardware, Plan, RunOptions, TrainingData, train
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.png", "b.png"):
    ...         pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    ...         Image.fromarray(pixels).save(f"{folder}/{name}")
    ...     result = train(
    ...         CodecTraining(
    ...             TrainingData(folder, num_workers=0),
    ...             RunOptions(f"{folder}/run"),
    ...             plan=Plan(max_steps=2, batch_size=2, patch_size=64),
    ...             hardware=Hardware("cpu"),
    ...             preset="polc-tiny",
    ...             perceptual="none",
    ...         )
    ...     )
    ...     result.steps, result.finished, result.last.name
    (2, True, 'last.safetensors')
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from .jobs.base import PRECISIONS, Hardware, Training, Validation
from .log import Listener, Log
from .loop import Trainer
from .runs import BEST, LAST, RunFolder, check_folder
from .state import load_state


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Attributes:
        folder: of the run.
        steps: optimiser steps done so far.
        total: optimiser steps of the whole run; fewer are done where it was stopped.
        loss: the least validation loss so far; None without validation data.
    """

    folder: Path
    steps: int
    total: int
    loss: float | None

    @property
    def finished(self) -> bool:
        """Whether every step is done."""
        return self.steps == self.total

    @property
    def last(self) -> Path:
        """The last checkpoint."""
        return self.folder / LAST

    @property
    def best(self) -> Path | None:
        """The checkpoint with the least validation loss; None without validation data."""
        return None if self.loss is None else self.folder / BEST


def train(training: Training, listener: Listener | None = None) -> TrainingResult:
    """Trains a stage, from the start or from where its run stopped.

    It seeds torch's global generator. With several devices it starts the program again in a process for each.

    Args:
        training: `CodecTraining`, `AdversarialTraining`, `AdapterTraining` or `PixelTraining`.
        listener: hears how the run proceeds; may stop it after a step, its state saved.

    Raises:
        UsageError: the options do not fit together, or the folder already holds a run.
        DataError: data are missing, unreadable or of another layout.
        CheckpointError: a checkpoint, or the run to resume, is missing, damaged or another one.
        BackendUnavailable: TensorBoard is not installed, and `logdir` is given.
        PolcError: the loss is not finite.
    """
    with _trainer(training, listener) as trainer:
        trainer.run()
        progress = trainer.state.progress
        return TrainingResult(trainer.folder.folder, progress.step, trainer.total, progress.best)


def evaluate(training: Training, listener: Listener | None = None) -> Validation:
    """Validates what a run trains, as it is at the start or, with `resume`, as the run holds it.

    Args:
        training: as for `train`.
        listener: hears the record.

    Raises:
        UsageError: there are no validation data; else as `train`.
    """
    with _trainer(training, listener) as trainer:
        return trainer.evaluate()


@contextmanager
def _trainer(training: Training, listener: Listener | None) -> Iterator[Trainer]:
    """The trainer of a run, at the step that the run has reached."""
    fabric = _fabric(training.hardware)
    path, seed = Path(training.run.folder), training.plan.seed
    check_folder(path, training.run.resume)
    torch.manual_seed(seed)
    job = training.job()
    torch.manual_seed(seed + fabric.global_rank)
    folder = RunFolder(path, job.write)
    with Log(path, training.run.logdir, listener, fabric.is_global_zero) as log:
        trainer = Trainer(fabric, training, job, log, folder)
        if training.run.resume:
            load_state(folder.state, trainer.state, fabric.global_rank)
            log.cut(trainer.state.progress.records)
        yield trainer


def _fabric(hardware: Hardware) -> Fabric:
    strategy: Any = DDPStrategy(find_unused_parameters=True) if hardware.devices > 1 else "auto"
    fabric = Fabric(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        strategy=strategy,
        precision=PRECISIONS[hardware.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric
