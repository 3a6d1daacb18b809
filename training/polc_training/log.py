"""What a run tells while it goes on: a progress bar, a JSON-lines file, TensorBoard, sample pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from polc_runtime.cli.console import say
from polc_runtime.errors import BackendUnavailable, CheckpointError
from polc_runtime.files.outputs import write_file
from polc_runtime.pictures.images import Pixels, encode_image


class Log:
    """Writes records of one run; a context manager.

    Args:
        path: the JSON-lines file; each record is one object with `kind`, `step` and numbers;
            None writes none.
        logdir: folder for TensorBoard; None for none.
        samples: folder for sample pictures; None for none.
        quiet: no bar and no lines.

    Raises:
        BackendUnavailable: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, path: Path | None, logdir: Path | None = None, samples: Path | None = None, quiet: bool = False
    ) -> None:
        self.path, self.samples, self.quiet = path, samples, quiet
        self._board = None if logdir is None else _tensorboard(logdir)
        self.records = len(self._lines())
        self._bar: Any = None

    def cut(self, count: int) -> None:
        """Keeps the first `count` records only: those a resumed run had written when it was saved."""
        lines = self._lines()
        if self.path is None or len(lines) == count:
            return
        if len(lines) < count:
            raise CheckpointError(
                f"{self.path} has {len(lines)} records, the run to go on with wrote {count}"
            )
        write_file(self.path, "".join(lines[:count]).encode(), force=True)
        self.records = count

    def start(self, done: int, total: int, label: str) -> None:
        """Shows the bar, at `done` of `total` steps; off a terminal, records are printed as lines."""
        if not self.quiet and sys.stderr.isatty():
            self._bar = click.progressbar(
                length=total, label=label, file=sys.stderr, show_pos=True, item_show_func=lambda item: item
            )
            self._bar.__enter__()
            self._bar.update(done)

    def advance(self, losses: Mapping[str, float]) -> None:
        """Moves the bar by one step and shows the parts of its loss."""
        if self._bar is not None:
            self._bar.update(1, _told(losses))

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends a record: numbers, or rows of numbers under one name."""
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self.records += 1
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._bar is None and not self.quiet:
            say(f"{kind} {step}: {_told(numbers)}")

    def picture(self, name: str, step: int, pixels: Pixels) -> None:
        """Keeps a sample picture, uint8 [H,W,3]; a later one of that name takes its place on disk."""
        if self.samples is not None:
            self.samples.mkdir(parents=True, exist_ok=True)
            write_file(self.samples / f"{name}.png", encode_image(pixels), force=True)
        if self._board is not None:
            self._board.add_image(name, pixels, step, dataformats="HWC")

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, trace)
        if self._board is not None:
            self._board.close()

    def _lines(self) -> list[str]:
        if self.path is None or not self.path.exists():
            return []
        return self.path.read_text().splitlines(keepends=True)


def _told(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BackendUnavailable("--logdir needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter(str(folder))
