"""Many images or files at once on one codec: reading, networks and entropy coding of several overlap.

>>> from polc_runtime import Codec
>>> from polc_runtime.codec.pipeline import compress_many
>>> with Codec.load("my.bundle", backend="tensorrt") as codec:  # doctest: +SKIP
...     for outcome in compress_many(codec, paths, quality=4):
...         data = outcome.result()
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from ..backends import CPU, Backend, FloatArray
from ..backends.wrapper import BackendWrapper
from ..errors import Interrupted, UsageError
from ..files.inputs import Source
from ..pictures.images import Pixels
from ..pictures.sources import ImageSource, pixels_of
from ..trace import span
from .codec import READ, Codec

T = TypeVar("T")
R = TypeVar("R")

FileSource = str | os.PathLike[str] | bytes
"""A `.polc` file: its path, or its bytes."""

WAIT = "wait for the networks"
"""Span of `polc_runtime.trace`: waiting for others' networks."""

WORKERS = 4
"""Items under way at once by default."""

PATIENCE, READ_PATIENCE = 10.0, 0.2
"""Seconds that leaving early waits for an item under way, and for one that reads its input."""


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


class NetworkLock(BackendWrapper):
    """Limits how many graphs of a backend run at once, over all threads.

    Between two graphs of one item, those of another may run; what is not a graph overlaps freely.

    Args:
        backend: runs the graphs.
        at_once: how many.
    """

    def __init__(self, backend: Backend, at_once: int = 1) -> None:
        super().__init__(backend)
        self._at_once = at_once
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Waits for its turn, then runs a graph, see `Backend.run`.

        Raises:
            Interrupted: `stop` was called.
        """
        with span(WAIT), self._changed:
            self._changed.wait_for(lambda: self._stopped or self._running < self._at_once)
            if self._stopped:
                raise Interrupted("stopped before it was done")
            self._running += 1
        try:
            return self.backend.run(graph, inputs)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Ends all work on the backend: whoever waits or asks for a graph gets `Interrupted`.

        Returns when no graph runs any more.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._running == 0)


def lock_networks(codec: Codec, workers: int, networks: int | None = None) -> NetworkLock:
    """A lock around a codec's backend, for `Codec.over`.

    Args:
        codec: its backend says on which device it runs.
        workers: items under way at once.
        networks: graphs that may run at once; None for one on the processor, where a graph fills the cores,
            and for as many as there are workers on another device, which copies for one and runs another.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    if networks is None:
        on_processor = codec.backend.describe().get("device", CPU) == CPU
        networks = 1 if on_processor else workers
    for name, value in (("workers", workers), ("networks", networks)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return NetworkLock(codec.backend, networks)


def compress_many(
    codec: Codec,
    images: Iterable[ImageSource],
    quality: float | None = None,
    workers: int = WORKERS,
    networks: int | None = None,
    portable: bool = True,
) -> Iterator[Outcome[bytes]]:
    """The `.polc` files of images, in their order; each is the one that `Codec.compress` makes.

    Image files are read, and images coded, by several threads at once. At most twice as many items as there
    are workers are held, counted from where `images` gives them to where the caller takes their outcome. An
    item that fails, for whatever reason, is an outcome with an error, and the others go on.

    Args:
        codec: compresses; it must not be closed before the last outcome is taken.
        images: paths, bytes of image files, uint8 [H,W,3] arrays or Pillow images; taken one by one as there
            is room.
        quality: of them all; None for the bundle's default.
        workers: threads, and so items under way at once.
        networks: graphs that may run at once, see `lock_networks`.
        portable: as `Codec.compress` has it.

    Yields:
        An outcome for each image. Leaving early stops the items under way before their next graph.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    lock = lock_networks(codec, workers, networks)
    locked = codec.over(lock)

    def compress(image: ImageSource) -> bytes:
        return locked.compress(_pixels(image, locked), quality, portable)

    return in_order(images, compress, workers, lock.stop)


def decompress_many(
    codec: Codec, files: Iterable[FileSource], workers: int = WORKERS, networks: int | None = None
) -> Iterator[Outcome[Pixels]]:
    """The images of `.polc` files, uint8 [H,W,3], in their order; as `compress_many` in all else.

    Args:
        codec: decompresses; it must not be closed before the last outcome is taken.
        files: paths or bytes; taken one by one as there is room.
        workers: threads, and so items under way at once.
        networks: graphs that may run at once, see `lock_networks`.

    Yields:
        An outcome for each file. Leaving early stops the items under way before their next graph.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    lock = lock_networks(codec, workers, networks)
    locked = codec.over(lock)
    return in_order(files, lambda file: locked.decompress(_bytes(file, locked)), workers, lock.stop)


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
    crew = _Workers(workers)
    under_way: deque[Future[Outcome[R]]] = deque()
    try:
        for index, item in enumerate(items):
            under_way.append(crew.submit(partial(copy_context().run, _attempt, do, index, item)))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        crew.stop(stop)


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


def _pixels(image: ImageSource, codec: Codec) -> Pixels:
    if isinstance(image, np.ndarray):
        return image
    with reading():
        return pixels_of(image, codec.limits)


def _bytes(file: FileSource, codec: Codec) -> bytes:
    if isinstance(file, bytes):
        return file
    with reading():
        path = Path(file)
        return Source(path, Path(path.name)).read(codec.limits, "max_bytes")
