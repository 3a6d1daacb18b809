"""Seconds by graph, as backends that time graphs on their device keep them."""

from __future__ import annotations

import threading
from collections import defaultdict


class GraphSeconds:
    """Sums of seconds by graph, kept once they are asked for; threads may share it.

    Attributes:
        wanted: whether anybody asked, so that runs need to be timed.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, graph: str, seconds: float) -> None:
        """Counts a run."""
        with self._lock:
            self._seconds[graph] += seconds

    def take(self) -> dict[str, float]:
        """The sums; the next ones begin at nothing."""
        with self._lock:
            found = dict(self._seconds)
            self._seconds.clear()
        return found
