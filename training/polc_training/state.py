"""The state of a run on disk: everything that it takes to resume exactly where it stopped."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from polc_runtime.errors import CheckpointError, first_line
from polc_runtime.files.inputs import open_file
from polc_runtime.files.outputs import write_file

from .stages.base import Stage

VERSION = 1


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        validated: the step of the last validation.
        best: the best validation loss so far, None before the first.
        records: of the log kept so far, so that a resumed log has no record twice.
    """

    step: int = 0
    validated: int = 0
    best: float | None = None
    records: int = 0


@dataclass
class TrainingState:
    """What a run consists of while it trains.

    Attributes:
        stage: what learns; its frozen parts are not kept.
        optimizers: by objective.
        average: moving average of the weights, or None.
        progress: how far it has come.
        settings: what a resumed run must share with this one, JSON-able.
    """

    stage: Stage
    optimizers: dict[str, torch.optim.Optimizer]
    average: AveragedModel | None = None
    progress: Progress = field(default_factory=Progress)
    settings: dict[str, Any] = field(default_factory=dict)


def random_state() -> dict[str, Any]:
    """The states of torch's global generators in this process, which all that is random draws from."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_state(path: Path, state: TrainingState, random_states: list[dict[str, Any]]) -> None:
    """Writes a run's state, whole or not at all.

    Args:
        path: of the file.
        state: the run.
        random_states: of every process, by rank.
    """
    document = {
        "version": VERSION,
        "stage": state.stage.learned_state(),
        "optimizers": {name: each.state_dict() for name, each in state.optimizers.items()},
        "average": None if state.average is None else state.average.state_dict(),
        "progress": vars(state.progress),
        "settings": state.settings,
        "random": random_states,
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    write_file(path, buffer.getvalue(), force=True)


def load_state(path: Path, state: TrainingState, rank: int = 0) -> None:
    """Loads a run's state, in place.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another run.
    """
    document = _read(path)
    settings = document["settings"]
    if other := sorted(key for key in state.settings if settings.get(key) != state.settings[key]):
        differences = (f"{key} {settings.get(key)} there, {state.settings[key]} here" for key in other)
        raise CheckpointError(f"{path} is the state of another run: {', '.join(differences)}")
    try:
        state.stage.load_learned_state(document["stage"])
        for name, optimizer in state.optimizers.items():
            optimizer.load_state_dict(document["optimizers"][name])
        if state.average is not None:
            state.average.load_state_dict(document["average"])
        progress = document["progress"]
        state.progress = Progress(**{"validated": progress["step"], **progress})  # older states lack it
        set_random_state(document["random"][rank])
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is the state of another run: {first_line(error)}") from None


def _read(path: Path) -> dict[str, Any]:
    with open_file(path) as stream:
        try:
            document = torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the unpickler and the zip reader raise
            raise CheckpointError(f"{path} is not a training state: {first_line(error)}") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise CheckpointError(f"{path} is not a training state of version {VERSION}")
    return document
