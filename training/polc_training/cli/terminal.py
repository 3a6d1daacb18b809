"""What `polc-train` shows while a run trains, and the signals that stop it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

import click

from polc_runtime.cli.console import say

from ..log import Listener

INTERRUPTED = 128 + signal.SIGINT


class Terminal(Listener):
    """Shows a run on standard error, a bar on a terminal, else a line for each record; a context manager.

    From the first step on SIGINT and SIGTERM stop the run after its step; a second one ends the program.

    Args:
        label: of the bar.
        quiet: shows nothing.
    """

    def __init__(self, label: str, quiet: bool) -> None:
        self.label, self.quiet = label, quiet
        self._bar: Any = None
        self._stopped = False
        self._handlers: dict[int, Any] = {}

    def start(self, step: int, total: int, rank: int) -> None:
        """Shows the bar, in the first process; takes the signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)
        if rank == 0 and not self.quiet and sys.stderr.isatty():
            self._bar = click.progressbar(
                length=total,
                label=self.label,
                file=sys.stderr,
                show_pos=True,
                item_show_func=lambda item: item,
            )
            self._bar.__enter__()
            self._bar.update(step)

    def advance(self, losses: Mapping[str, float]) -> None:
        """Moves the bar by one step and shows the parts of its loss."""
        if self._bar is not None:
            self._bar.update(1, _line(losses))

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Prints a record as a line, where there is no bar."""
        if self._bar is None and not self.quiet:
            numbers = {name: value for name, value in values.items() if isinstance(value, float)}
            say(f"{kind} {step}: {_line(numbers)}")

    def stop(self) -> bool:
        """Whether a signal came."""
        return self._stopped

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, trace)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        signal.signal(number, self._handlers[number])


def _line(values: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
