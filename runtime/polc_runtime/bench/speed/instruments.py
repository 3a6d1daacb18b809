"""What is read off a running codec: seconds of its stages and graphs, and the memory of the process."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...backends import Backend, FloatArray
from ...backends.wrapper import BackendWrapper
from ...trace import listening, span

OTHER = "other"
"""The stage of everything that no span covers."""

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class Call(NamedTuple):
    """One run of a graph: its name, and the shape of each input by name."""

    graph: str
    shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Lap:
    """One run of an operation.

    Attributes:
        total: seconds of all of it.
        stages: seconds of each stage, in the order in which they begin; they sum to the total.
        result: what the operation returned.
        device: seconds of each graph on its device, by the device's own clock; empty where it has none.
    """

    total: float
    stages: dict[str, float]
    result: Any
    device: dict[str, float] = field(default_factory=dict)


class Stopwatch:
    """A listener of `polc_runtime.trace` for any number of threads: seconds by name, without inner spans'."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[dict[str, float]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Times a span of the calling thread."""
        own = self._own
        if not hasattr(own, "seconds"):
            own.seconds, own.inside = {}, 0.0
            self._all.append(own.seconds)
        before, own.inside = own.inside, 0.0
        own.seconds.setdefault(name, 0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            own.seconds[name] += spent - own.inside
            own.inside = before + spent

    def seconds(self) -> Counter[str]:
        """Seconds by name, of the spans that have ended, over all threads."""
        total: Counter[str] = Counter()
        for seconds in list(self._all):
            total.update(seconds.copy())
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
    seconds = watch.seconds()
    return Lap(total, {**seconds, OTHER: total - sum(seconds.values())}, result, device())


class TimedBackend(BackendWrapper):
    """Makes every run of a graph a span of its name, and keeps a list of the runs.

    Backends return arrays of the host, so a run ends when its device has finished it.

    Args:
        backend: runs the graphs.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.calls: list[Call] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Runs a graph, inside a span."""
        self.calls.append(Call(graph, {name: value.shape for name, value in inputs.items()}))
        with span(graph):
            return self.backend.run(graph, inputs)


def reset_peak() -> bool:
    """Forgets the peak of memory so far; False where the system refuses."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
        return True
    return False


def peak_bytes() -> int | None:
    """The most resident memory since `reset_peak`, or since the process started; None if unknown."""
    found = _status("VmHWM")
    return _lifetime_peak() if found is None else found


def resident_bytes() -> int | None:
    """Resident memory now; None if unknown."""
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        match = re.search(rf"^{field}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(match[1]) if match else None


def _lifetime_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
