"""What a run reports: a JSON-lines file, TensorBoard, sample images, and a listener."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from polc_runtime.errors import BackendUnavailable, CheckpointError
from polc_runtime.files.outputs import write_file
from polc_runtime.pictures.images import Pixels, encode_image


class Listener:
    """Hears how a run proceeds and may stop it; children override what they need."""

    def start(self, step: int, total: int, rank: int) -> None:
        """The run begins, or resumes, at `step` of `total` steps; called in each of its processes."""

    def advance(self, losses: Mapping[str, float]) -> None:
        """A step is done; called in the first process alone, as `record` is."""

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """A record was logged."""

    def stop(self) -> bool:
        """Whether to save the state and stop after this step; asked in each process."""
        return False


class Log:
    """Writes records of one run; a context manager.

    Args:
        folder: of the run; `log.jsonl` in it has an object for each record, with `kind`, `step`, `time` and
            numbers; `samples/` has the images.
        logdir: folder for TensorBoard; None for none.
        listener: hears each record.
        writes: whether to write at all: one process of a run does.

    Raises:
        BackendUnavailable: TensorBoard is not installed, and `logdir` is given.
    """

    def __init__(
        self, folder: Path, logdir: str | Path | None, listener: Listener | None = None, writes: bool = True
    ) -> None:
        self.path, self.samples = folder / "log.jsonl", folder / "samples"
        self.listener, self.writes = listener or Listener(), writes
        self._board = None if logdir is None or not writes else _tensorboard(str(logdir))
        self.records = len(self._lines())

    def cut(self, count: int) -> None:
        """Keeps the first `count` records only: those a resumed run had written when it was saved."""
        lines = self._lines()
        if not self.writes or len(lines) == count:
            return
        if len(lines) < count:
            raise CheckpointError(
                f"{self.path} has {len(lines)} records, but the run to resume wrote {count}"
            )
        write_file(self.path, "".join(lines[:count]).encode(), force=True)
        self.records = count

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a record, in the first process alone: numbers, or rows of numbers under one name."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step, "time": time.time(), **values}) + "\n")
        self.records += 1
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        self.listener.record(kind, step, values)

    def image(self, name: str, step: int, pixels: Pixels) -> None:
        """Keeps a sample image, uint8 [H,W,3]; on disk it replaces the last one of that name."""
        self.samples.mkdir(exist_ok=True)
        write_file(self.samples / f"{name}.png", encode_image(pixels), force=True)
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    def _lines(self) -> list[str]:
        return self.path.read_text().splitlines(keepends=True) if self.path.exists() else []


def _tensorboard(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BackendUnavailable("logdir needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter(folder)
