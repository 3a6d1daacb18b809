"""Successive jobs overlap: one reads or writes while networks run for another, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from enum import Enum
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from ..files.outputs import Job, Target

R = TypeVar("R")

AT_ONCE = 2
"""Jobs under way at once, so the most images in memory, however many there are to do.

The networks of one of them run at a time: they fill the cores, and two side by side take longer.
"""


class Stage(Enum):
    """How far a job is, which settles what an interrupt does with it."""

    READING = "reads its input, or waits for its networks: it is left behind"
    WORKING = "runs networks, or makes its output: it is ended as soon as Python runs again"
    WRITING = "writes its output: it may finish"


_PATIENCE: dict[Stage, float | None] = {Stage.READING: 0.2, Stage.WORKING: None, Stage.WRITING: 10.0}
"""Seconds to wait for the thread of a stopped job. Reading or writing a pipe may last for ever."""


class Turn:
    """Asked by a job before it runs networks and for what it writes; for a single job, all is granted."""

    _waited = 0.0

    @contextmanager
    def networks(self) -> Iterator[None]:
        """Inside, the job may run networks, and no other job does. Before, it only reads."""
        yield

    def write(self, target: Target, data: bytes, force: bool) -> None:
        """Writes an output as `Target.write` does; an interrupt leaves it whole or not there."""
        target.write(data, force)

    def clock(self) -> float:
        """Seconds, from any beginning; it stands still while the job waits for another's networks."""
        return time.perf_counter() - self._waited


def in_order(jobs: Sequence[Job], do: Callable[[Job, Turn], R]) -> Generator[R, None, None]:
    """Results of `do` for every job, in order; up to `AT_ONCE` of several jobs are under way at once.

    Each job is done on one thread; a single job on the calling one. Closing the iterator, or an exception in
    the thread that waits for a result, stops the jobs under way; see `Stage`.

    Args:
        jobs: what to do.
        do: does one of them.

    Raises:
        BaseException: what `do` raises for the job whose turn it is.
    """
    if len(jobs) < 2:
        yield from (do(job, Turn()) for job in jobs)
        return
    crew = _Crew(jobs, do)
    try:
        crew.start()
        for result in crew.results:
            yield result.result()
    finally:
        crew.stop()


class _Crew(Generic[R]):
    """The threads, one of which may run networks."""

    def __init__(self, jobs: Sequence[Job], do: Callable[[Job, Turn], R]) -> None:
        self.results: list[Future[R]] = [Future() for _ in jobs]
        self._do = do
        self._free = True
        self._stopped = False
        self._left: SimpleQueue[tuple[Job, Future[R]]] = SimpleQueue()
        for entry in zip(jobs, self.results, strict=True):
            self._left.put(entry)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._members = [self._member(number) for number in range(min(AT_ONCE, len(jobs)))]

    def start(self) -> None:
        """Begins the first jobs."""
        for thread, _ in self._members:
            thread.start()

    def take_networks(self) -> None:
        """Waits until no other job runs networks."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._free)
            self._free = False

    def leave_networks(self) -> None:
        """Lets another job run networks."""
        with self._lock:
            self._free = True
            self._changed.notify_all()

    def move(self, turn: _SharedTurn, stage: Stage) -> None:
        """Notes how far a job is; ends its thread if the jobs are to stop."""
        with self._lock:
            if self._stopped:
                raise SystemExit
            turn.stage = stage

    def stop(self) -> None:
        """Has every thread end, and waits for those that might leave something behind."""
        with self._lock:
            self._stopped = True
            for thread, turn in self._members:
                if turn.stage is Stage.WORKING:
                    _end(thread)
            self._changed.notify_all()
        for thread, turn in self._members:
            if thread.is_alive():
                thread.join(_PATIENCE[turn.stage])

    def _member(self, number: int) -> tuple[threading.Thread, _SharedTurn]:
        turn = _SharedTurn(self)
        thread = threading.Thread(target=self._work, args=(turn,), name=f"polc-job-{number}", daemon=True)
        return thread, turn

    def _work(self, turn: _SharedTurn) -> None:
        with suppress(SystemExit, Empty):
            while True:
                job, result = self._left.get_nowait()
                try:
                    settle = partial(result.set_result, self._do(job, turn))
                except BaseException as error:
                    settle = partial(result.set_exception, error)
                self.move(turn, Stage.READING)
                settle()


class _SharedTurn(Turn):
    """The turn of the jobs that one thread of a crew does."""

    def __init__(self, crew: _Crew[Any]) -> None:
        self.stage = Stage.READING
        self._crew = crew

    @contextmanager
    def networks(self) -> Iterator[None]:
        started = time.perf_counter()
        self._crew.take_networks()
        self._waited += time.perf_counter() - started
        self._crew.move(self, Stage.WORKING)
        try:
            yield
        finally:
            self._crew.leave_networks()

    def write(self, target: Target, data: bytes, force: bool) -> None:
        self._crew.move(self, Stage.WRITING)
        target.write(data, force)
        self._crew.move(self, Stage.WORKING)


def _end(thread: threading.Thread) -> None:
    """Raises SystemExit in a thread, as an interrupt raises KeyboardInterrupt in the main one.

    The thread gets it as soon as it runs Python again: after the graph it is in. A thread ends silently on
    it, and nothing on the way takes it for a failure.
    """
    from ctypes import c_ulong, py_object, pythonapi

    pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread.ident or 0), py_object(SystemExit))
