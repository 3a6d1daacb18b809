"""Times of named stages of the codec's work, and of the graphs inside it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..backends import Backend, FloatArray
from ..trace import listening, span

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
    """

    total: float
    stages: dict[str, float]
    result: Any


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


def lap(work: Callable[[], Any]) -> Lap:
    """Runs an operation, and times it and its stages."""
    watch = Stopwatch()
    with listening(watch):
        started = time.perf_counter()
        result = work()
        total = time.perf_counter() - started
    return Lap(total, {**watch.seconds, OTHER: total - sum(watch.seconds.values())}, result)


class TimedBackend:
    """A backend whose graphs are spans, called as they are, and which keeps a list of their runs.

    What a backend returns are arrays of the host, so a run ends when its device has done it.

    Args:
        backend: runs them.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name = backend.name
        self.calls: list[Call] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        self.calls.append(Call(graph, {name: value.shape for name, value in inputs.items()}))
        with span(graph):
            return self.backend.run(graph, inputs)

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return self.backend.describe()

    def close(self) -> None:
        """See `Backend.close`."""
        self.backend.close()


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
