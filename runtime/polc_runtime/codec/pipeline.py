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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..backends import CPU, Backend, FloatArray
from ..backends.wrapper import BackendWrapper
from ..errors import Interrupted, UsageError
from ..files.inputs import Source
from ..pictures.images import Pixels
from ..pictures.sources import ImageSource, pixels_of
from ..trace import span
from ..workers import WAIT, Outcome, in_order, reading
from .codec import Codec

FileSource = str | os.PathLike[str] | bytes
"""A `.polc` file: its path, or its bytes."""

WORKERS = 4
"""Items under way at once by default."""


class NetworkSlots:
    """Limits how many items run graphs at once, over all threads and backends that share the slots.

    Args:
        at_once: how many items.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = at_once
        self._running = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._own = threading.local()

    @contextmanager
    def item(self) -> Iterator[None]:
        """Keeps one slot for all graphs that this thread runs inside: no other item runs between two of them.

        So the work between an item's graphs does not compete with another's graph for the same cores.

        Raises:
            Interrupted: `stop` was called.
        """
        with self._taken():
            self._own.has_slot = True
            try:
                yield
            finally:
                self._own.has_slot = False

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Waits for a free slot, unless the thread has its item's; the graph runs inside.

        Raises:
            Interrupted: `stop` was called.
        """
        if not getattr(self._own, "has_slot", False):
            with self._taken():
                yield
            return
        if self._stopped:
            raise Interrupted("stopped before it was done")
        yield

    @contextmanager
    def _taken(self) -> Iterator[None]:
        with span(WAIT), self._changed:
            self._changed.wait_for(lambda: self._stopped or self._running < self._at_once)
            if self._stopped:
                raise Interrupted("stopped before it was done")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Frees no more slots: threads that wait or ask for one get `Interrupted`.

        Returns when no graph is running, and no item holds a slot.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._running == 0)


class NetworkLock(BackendWrapper):
    """A backend that runs each graph in a slot: the thread's item's, or one for the graph alone.

    Args:
        backend: runs the graphs.
        slots: may be shared with other backends.
    """

    def __init__(self, backend: Backend, slots: NetworkSlots) -> None:
        super().__init__(backend)
        self.slots = slots

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Runs a graph once there is a free slot, see `Backend.run`.

        Raises:
            Interrupted: the slots were stopped.
        """
        with self.slots.slot():
            return self.backend.run(graph, inputs)


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
        networks: items whose graphs may run at once; None for one on the processor, where a graph fills the
            cores, and for as many as there are workers on another device, which copies for one and runs
            another.
        portable: as `Codec.compress` has it.

    Yields:
        An outcome for each image. Leaving early stops the items under way before their next graph.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    slots = _slots(codec, workers, networks)
    locked = codec.over(NetworkLock(codec.backend, slots))

    def compress(image: ImageSource) -> bytes:
        pixels = _pixels(image, locked)
        with slots.item():
            return locked.compress(pixels, quality, portable)

    return in_order(images, compress, workers, slots.stop)


def decompress_many(
    codec: Codec, files: Iterable[FileSource], workers: int = WORKERS, networks: int | None = None
) -> Iterator[Outcome[Pixels]]:
    """The images of `.polc` files, uint8 [H,W,3], in their order; as `compress_many` in all else.

    Args:
        codec: decompresses; it must not be closed before the last outcome is taken.
        files: paths or bytes; taken one by one as there is room.
        workers: threads, and so items under way at once.
        networks: items whose graphs may run at once, as `compress_many` has it.

    Yields:
        An outcome for each file. Leaving early stops the items under way before their next graph.

    Raises:
        UsageError: `workers` or `networks` is not positive.
    """
    slots = _slots(codec, workers, networks)
    locked = codec.over(NetworkLock(codec.backend, slots))

    def decompress(file: FileSource) -> Pixels:
        data = _bytes(file, locked)
        with slots.item():
            return locked.decompress(data)

    return in_order(files, decompress, workers, slots.stop)


def _slots(codec: Codec, workers: int, networks: int | None) -> NetworkSlots:
    if networks is None:
        on_processor = codec.backend.device == CPU
        networks = 1 if on_processor else workers
    for name, value in (("workers", workers), ("networks", networks)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1, got {value}")
    return NetworkSlots(networks)


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
