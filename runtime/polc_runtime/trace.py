"""Named timing spans, and reports of progress; no-ops unless somebody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

Listener = Callable[[str], AbstractContextManager[None]]
"""Gives the context manager that a piece of work of a name runs in."""

_NOTHING = nullcontext()
_listener: ContextVar[Listener | None] = ContextVar("polc_trace", default=None)


def span(name: str) -> AbstractContextManager[None]:
    """What a piece of work runs in, so that the listener of this thread can tell when; spans may nest."""
    listener = _listener.get()
    return _NOTHING if listener is None else listener(name)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hands every span of this thread to a listener, as long as the context lasts."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@dataclass(frozen=True)
class Progress:
    """How far a measurement is.

    Attributes:
        done: steps that are finished.
        total: all steps there are.
        message: what the last step found, in one line; may be empty.
        notices: sentences the user should read whether or not he follows the progress.
    """

    done: int
    total: int
    message: str = ""
    notices: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]


class Steps:
    """Counts the steps of a measurement and reports each.

    Args:
        total: steps there are.
        report: receives the reports; None for nobody.
    """

    def __init__(self, total: int, report: OnProgress | None = None) -> None:
        self.total = total
        self.done = 0
        self._report = report

    def step(self, message: str = "", notices: tuple[str, ...] = (), count: int = 1) -> None:
        """Finishes `count` steps, and reports it."""
        self.done += count
        if self._report is not None:
            self._report(Progress(self.done, self.total, message, notices))
