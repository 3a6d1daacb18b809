"""The part of a backend that times graphs on its device (`DeviceTimed`)."""

from __future__ import annotations

import threading
from collections import defaultdict


class GraphClock:
    """Sums of seconds by graph, kept once they are asked for; threads may share it.

    Attributes:
        timed: whether runs are to be timed.
    """

    def __init__(self) -> None:
        self.timed = False
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._seconds_lock = threading.Lock()

    def time_graphs(self) -> None:
        """Times every run from now on, which may make each a little slower."""
        self.timed = True

    def add_seconds(self, graph: str, seconds: float) -> None:
        """Counts a run of a graph."""
        with self._seconds_lock:
            self._seconds[graph] += seconds

    def graph_seconds(self) -> dict[str, float]:
        """The sums since the last call."""
        with self._seconds_lock:
            found = dict(self._seconds)
            self._seconds.clear()
        return found
