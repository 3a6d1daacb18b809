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
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from ..backends import CPU, Backend, FloatArray
from ..backends.wrapper import BackendWrapper
from ..errors import FAILURES, UsageError
from ..files.inputs import Source
from ..pictures.images import Pixels, read_image
from ..trace import span
from . import Codec

T = TypeVar("T")
R = TypeVar("R")

ImageSource = Pixels | Path | bytes
"""An image: uint8 [H,W,3], an image file, or the bytes of one."""

FileSource = Path | bytes
"""A `.polc` file, or its bytes."""

READ, WAIT = "read", "wait for the networks"
"""Spans of `polc_runtime.trace`: reading and decoding an image file, and waiting for others' networks."""

WORKERS = 4
"""Items under way at once where nobody says how many."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What came of one item.

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


class Gate(BackendWrapper):
    """A backend of whose graphs only so many run at once, whichever threads ask.

    Between two graphs of one item, those of another may run; what is not a graph overlaps freely.

    Args:
        backend: runs them.
        most: graphs at once.
    """

    def __init__(self, backend: Backend, most: int = 1) -> None:
        super().__init__(backend)
        self._turn = threading.BoundedSemaphore(most)

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        with span(WAIT):
            self._turn.acquire()
        try:
            return self.backend.run(graph, inputs)
        finally:
            self._turn.release()


def compress_many(
    codec: Codec,
    images: Iterable[ImageSource],
    quality: float = 4.0,
    workers: int = WORKERS,
    networks: int | None = None,
    portable: bool = True,
) -> Iterator[Outcome[bytes]]:
    """The `.polc` files of images, in their order; each is the one that `Codec.compress` makes.

    Image files are read, and images coded, by several threads at once. At most twice as many items as there
    are workers are held, counted from where `images` gives them to where the caller takes their outcome. An
    item that fails is an outcome with an error, and the others go on.

    Args:
        codec: compresses; it must not be closed before the last outcome is taken.
        images: arrays, paths or bytes of image files; taken one by one as there is room.
        quality: of them all.
        workers: threads, and so items under way at once.
        networks: graphs that may run at once; None for one on the processor, where a graph fills the cores,
            and for as many as there are workers on another device, which copies for one and runs another.
        portable: as `Codec.compress` has it.

    Yields:
        An outcome for each image. Leaving early waits for the items under way.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    gated = _gated(codec, workers, networks)
    return _in_order(images, lambda image: gated.compress(_pixels(image, gated), quality, portable), workers)


def decompress_many(
    codec: Codec, files: Iterable[FileSource], workers: int = WORKERS, networks: int | None = None
) -> Iterator[Outcome[Pixels]]:
    """The images of `.polc` files, uint8 [H,W,3], in their order; as `compress_many` in all else.

    Args:
        codec: decompresses; it must not be closed before the last outcome is taken.
        files: paths or bytes; taken one by one as there is room.
        workers: threads, and so items under way at once.
        networks: graphs that may run at once, as `compress_many` has it.

    Yields:
        An outcome for each file. Leaving early waits for the items under way.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    gated = _gated(codec, workers, networks)
    return _in_order(files, lambda file: gated.decompress(_bytes(file, gated)), workers)


def _gated(codec: Codec, workers: int, networks: int | None) -> Codec:
    if networks is None:
        on_processor = codec.backend.device == CPU
        networks = 1 if on_processor else workers
    for name, value in (("workers", workers), ("networks", networks)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return codec.over(Gate(codec.backend, networks))


def _in_order(items: Iterable[T], do: Callable[[T], R], workers: int) -> Iterator[Outcome[R]]:
    """Outcomes of `do` for every item, in order, by that many threads."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="polc-pipeline")
    under_way: deque[Future[Outcome[R]]] = deque()
    try:
        for index, item in enumerate(items):
            # A context of its own: the caller's listeners and settings hold in the threads too.
            under_way.append(pool.submit(copy_context().run, partial(_attempt, do, index, item)))
            if len(under_way) >= 2 * workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attempt(do: Callable[[T], R], index: int, item: T) -> Outcome[R]:
    try:
        return Outcome(index, do(item))
    except FAILURES as error:
        return Outcome(index, error=error)


def _pixels(image: ImageSource, codec: Codec) -> Pixels:
    if not isinstance(image, (bytes, os.PathLike)):
        return image
    with span(READ):
        return read_image(image, codec.limits).pixels


def _bytes(file: FileSource, codec: Codec) -> bytes:
    if isinstance(file, bytes):
        return file
    with span(READ):
        return Source(file, Path(file.name)).read(codec.limits, "max_bytes")
