"""Names what the runtime is busy with, for whoever measures it; costs nothing where nobody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

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
