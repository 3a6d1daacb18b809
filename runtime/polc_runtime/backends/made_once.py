"""Values that are made when they are first asked for, such as a session for each graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class MadeOnce(Generic[K, V]):
    """Keeps a value for each key, made once; threads that ask for other keys do not wait for it."""

    def __init__(self) -> None:
        self._values: dict[K, V] = {}
        self._locks: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key; `make` makes it, and where that raises, the next to ask tries again."""
        if key in (values := self._values):
            return values[key]
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in values:
                values[key] = make()
            return values[key]

    def clear(self) -> None:
        """Forgets every value."""
        self._values = {}
