"""A run's folder: last.safetensors and best.safetensors to export, last.pt to resume from, log.jsonl."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from polc_runtime.errors import CheckpointError, UsageError
from polc_runtime.files.outputs import make_folder, write_file

from .state import TrainingState, save_state

STATE, LAST, BEST = "last.pt", "last.safetensors", "best.safetensors"

Write = Callable[[Path, nn.Module, int], None]
"""(path, learners, step): writes a checkpoint that `polc-export` reads."""


def check_folder(folder: Path, resume: bool) -> None:
    """Raises unless a run can be started, or resumed, in a folder.

    Raises:
        UsageError: the folder holds a run, and it is not to be resumed.
        CheckpointError: there is no run to resume.
    """
    if resume and not (folder / STATE).is_file():
        raise CheckpointError(f"{folder} holds no run to resume ({STATE} is missing)")
    if not resume and (folder / STATE).exists():
        raise UsageError(f"{folder} already holds a run: resume it, or choose another folder")


class RunFolder:
    """Keeps one run on disk.

    Args:
        folder: made if it is not there.
        write: writes the stage's checkpoint.
    """

    def __init__(self, folder: Path, write: Write) -> None:
        self.folder, self.write = folder, write
        self.state = folder / STATE
        make_folder(folder)

    def keep(
        self, state: TrainingState, learners: nn.Module, best: bool, random_states: list[dict[str, Any]]
    ) -> None:
        """Writes the state, and the learners' weights as the last and, if they are, as the best.

        Each file is replaced whole or not at all.
        """
        self.write(self.folder / LAST, learners, state.progress.step)
        if best:
            write_file(self.folder / BEST, (self.folder / LAST).read_bytes(), force=True)
        save_state(self.state, state, random_states)
