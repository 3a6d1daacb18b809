"""Ctrl-C that is not lost: Python drops a KeyboardInterrupt raised inside a callback of native code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigint_flag() -> Iterator[Callable[[], None]]:
    """Notes every SIGINT beside raising KeyboardInterrupt, as ever.

    Yields:
        A function that raises KeyboardInterrupt if there was one; outside the main thread, which alone gets
        signals, it does nothing.
    """
    seen: list[int] = []

    def check() -> None:
        if seen:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
