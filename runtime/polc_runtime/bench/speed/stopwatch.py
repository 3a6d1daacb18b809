"""Times of named stages of the codec's work, and of the graphs inside it."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ...backends import Backend, FloatArray
from ...backends.wrapper import BackendWrapper
from ...trace import listening, span

OTHER = "other"
"""The stage of all that no span covers."""


class Call(NamedTuple):
    """One run of a graph: its name, and the shape of each input by name."""

    graph: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Lap:
    """One run of an operation.

    Attributes:
        total: seconds of all of it.
        stages: seconds of each stage, in the order of their beginnings; they sum to the total.
        result: what the operation gave.
        device: seconds of each graph on its device, by the device's own clock; empty where it has none.
    """

    total: float
    stages: dict[str, float]
    result: Any
    device: dict[str, float] = field(default_factory=dict)


@dataclass
class Stopwatch:
    """A listener of `polc_runtime.trace`: seconds by name; an outer span's are without its inner ones."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inside: float = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times a span."""
        before, self._inside = self._inside, 0.0
        self.seconds[name] += 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] += spent - self._inside
            self._inside = before + spent


class SharedStopwatch:
    """A listener that several threads share: each has a `Stopwatch`, and the sums are of them all."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[Stopwatch] = []

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """Times a span of the calling thread."""
        if not hasattr(self._own, "watch"):
            self._own.watch = Stopwatch()
            self._all.append(self._own.watch)
        timed: AbstractContextManager[None] = self._own.watch(name)
        return timed

    def seconds(self) -> Counter[str]:
        """Seconds by name, of the spans that have ended."""
        total: Counter[str] = Counter()
        for watch in list(self._all):
            total.update(watch.seconds.copy())
        return total


def lap(work: Callable[[], Any], device: Callable[[], dict[str, float]] = dict) -> Lap:
    """Runs an operation, and times it and its stages.

    Args:
        work: the operation.
        device: gives the seconds of its graphs on their device, as `DeviceTimed.graph_seconds`.
    """
    watch = Stopwatch()
    with listening(watch):
        started = time.perf_counter()
        result = work()
        total = time.perf_counter() - started
    stages = {**watch.seconds, OTHER: total - sum(watch.seconds.values())}
    return Lap(total, stages, result, device())


class TimedBackend(BackendWrapper):
    """A backend whose graphs are spans, called as they are, and which keeps a list of their runs.

    What a backend returns are arrays of the host, so a run ends when its device has done it.

    Args:
        backend: runs them.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.calls: list[Call] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        self.calls.append(Call(graph, {name: value.shape for name, value in inputs.items()}))
        with span(graph):
            return self.backend.run(graph, inputs)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The least, the median, the mean, and the 90th and 99th percentile, interpolated, of seconds."""
    median, p90, p99 = np.percentile(seconds, [50, 90, 99])
    return {
        "min": float(np.min(seconds)),
        "median": float(median),
        "mean": float(np.mean(seconds)),
        "p90": float(p90),
        "p99": float(p99),
    }
