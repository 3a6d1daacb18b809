"""Many items on several threads at once: outcomes in order, in bounded memory, and an orderly stop."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from .trace import span

T = TypeVar("T")
R = TypeVar("R")

READ, WAIT = "read", "wait for the networks"
"""Spans of `polc_runtime.trace`: reading an input, and waiting for the networks of other items."""

PATIENCE, READ_PATIENCE = 10.0, 0.2
"""Seconds that a stop waits for an item under way, and for one that reads its input."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """The result of one item, or its error.

    Attributes:
        index: the item's place among all, from 0.
        value: its result; None where it failed.
        error: why it failed; None where it did not.
    """

    index: int
    value: R | None = None
    error: Exception | None = None

    def result(self) -> R:
        """The value.

        Raises:
            Exception: the error, where the item failed.
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


def in_order(
    items: Iterable[T], do: Callable[[T], R], workers: int, stop: Callable[[], None] | None = None
) -> Generator[Outcome[R], None, None]:
    """Outcomes of `do` for every item, in order, by several threads.

    At most twice as many items as there are workers are held. Closing the generator, or an exception where
    it is waited on, begins no other item, calls `stop`, and waits for the items under way: at most
    `PATIENCE` seconds, and only `READ_PATIENCE` for one inside `reading`, which may wait for ever. What is
    left then ends with the process.

    Args:
        items: taken one by one as there is room, on the thread that takes the outcomes.
        do: makes the result of one item. Each call has the caller's context of when its item was taken.
        workers: threads.
        stop: makes `do` end early.
    """
    threads = _Workers(workers)
    under_way: deque[Future[Outcome[R]]] = deque()
    try:
        for index, item in enumerate(items):
            under_way.append(threads.submit(partial(copy_context().run, _attempt, do, index, item)))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        threads.stop(stop)


@contextmanager
def reading() -> Iterator[None]:
    """Where an item of `in_order` reads its input: work that is stopped does not wait for it to end."""
    thread = threading.get_ident()
    _readers.add(thread)
    try:
        with span(READ):
            yield
    finally:
        _readers.discard(thread)


_readers: set[int] = set()
"""Threads inside `reading`."""


class _Workers:
    """Threads that do tasks in the order they are submitted; they end with the process at the latest."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._threads: list[threading.Thread] = []
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._stopped = False

    def submit(self, task: Callable[[], R]) -> Future[R]:
        """Has a task done as soon as a thread is free."""
        if len(self._threads) < self._count:
            name = f"polc-pipeline-{len(self._threads)}"
            self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
            self._threads[-1].start()
        future: Future[R] = Future()
        self._tasks.put((future, task))
        return future

    def stop(self, stop: Callable[[], None] | None) -> None:
        """Ends the threads: drops tasks that were not begun; `stop` makes the others end early."""
        self._stopped = True
        for _ in self._threads:
            self._tasks.put(None)
        if stop is not None:
            stop()
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < until:
                thread.join(READ_PATIENCE)
                if thread.ident in _readers:
                    break

    def _work(self) -> None:
        while (entry := self._tasks.get()) is not None and not self._stopped:
            future, task = entry
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
            del entry, future, task  # frees the item while the next one is waited for


def _attempt(do: Callable[[T], R], index: int, item: T) -> Outcome[R]:
    try:
        return Outcome(index, do(item))
    except Exception as error:
        return Outcome(index, error=error)
