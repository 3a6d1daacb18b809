"""CUDA streams and the memory that TensorRT engines run in on them.

Tensors of one name share one block of a stream's memory, whichever engine they belong to: one engine's output
is the next one's input, in place. An input that is the very array which the stream gave out last under that
name is therefore on the device already; such arrays are read-only, so that they cannot change in between.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import PolcError
from ..base import FloatArray
from .api import LastError, choose_profile, create_context, give_scratch, scratch_size
from .cuda import CapturedGraph, Cuda, CudaError, DeviceBlock, PinnedBlock, Stream
from .engine_cache import EngineKey, Shape

RUNS_BEFORE_CAPTURE = 1
"""Runs on the same shapes and memory before one is captured: TensorRT sets up what it needs in the first."""


@dataclass
class LoadedEngine:
    """An engine that TensorRT has opened.

    Attributes:
        key: what it was built from and for.
        engine: TensorRT's object.
        inputs: names.
        outputs: names.
        captured: whether its runs are captured as CUDA graphs; turned off where that fails.
        kept: outputs that other graphs take as they are, and which stay on the device for them.
        making: held while a context of the engine is made.
    """

    key: EngineKey
    engine: Any
    inputs: list[str]
    outputs: list[str]
    captured: bool = False
    kept: Collection[str] = field(default_factory=frozenset)
    making: threading.Lock = field(default_factory=threading.Lock)


class _TensorMemory:
    """The memory of the tensors of one name, and which array of the host it holds, if it is known."""

    def __init__(self, cuda: Cuda) -> None:
        self.device = DeviceBlock(cuda)
        self.host = PinnedBlock(cuda)
        self._held: weakref.ref[FloatArray] | None = None

    def holds(self, array: FloatArray) -> bool:
        """Whether the device has this very array."""
        return self._held is not None and self._held() is array

    def keep(self, array: FloatArray) -> None:
        """Says that the device has this array, which is read-only from now on."""
        array.flags.writeable = False
        self._held = weakref.ref(array)

    def forget(self) -> None:
        """Says that the device's memory is about to be written."""
        self._held = None

    def free(self) -> None:
        self.forget()
        self.device.free()
        self.host.free()


class _Execution:
    """An engine on one stream: its context, bound to shapes and memory, and its run once that is captured."""

    def __init__(self, trt: Any, engine: LoadedEngine, stream: Stream) -> None:
        self.engine = engine
        with engine.making:
            self.context = create_context(trt, engine.engine)
            choose_profile(self.context, stream.handle)
        self.shapes: dict[str, Shape] = {}
        self._bound: tuple[Any, ...] = ()
        self._runs = 0
        self._captured: CapturedGraph | None = None

    def shape(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Sets the inputs' shapes; gives the outputs'."""
        if shapes != self.shapes:
            self.release()
            self.shapes = {}
            for name, shape in shapes.items():
                if not self.context.set_input_shape(name, shape):
                    raise PolcError(
                        f"TensorRT refuses the shape {list(shape)} of {name} in {self.engine.key.graph}"
                    )
            self.shapes = dict(shapes)
        return {name: tuple(self.context.get_tensor_shape(name)) for name in self.engine.outputs}

    def bind(self, addresses: Mapping[str, int], scratch: tuple[int, int]) -> None:
        """Says where the tensors and the working memory are."""
        wanted = (*addresses.items(), scratch)
        if wanted == self._bound:
            return
        self.release()
        give_scratch(self.context, *scratch)
        for name, address in addresses.items():
            self.context.set_tensor_address(name, address)
        self._bound = wanted

    def start(self, stream: Stream, error: LastError) -> None:
        """Starts a run on the stream, as one captured piece where that is possible."""
        if self._captured is None and self.engine.captured and self._runs >= RUNS_BEFORE_CAPTURE:
            self._captured = self._capture(stream, error)
        if self._captured is None:
            self._enqueue(stream, error)
        else:
            stream.launch(self._captured)
        self._runs += 1

    def _enqueue(self, stream: Stream, error: LastError) -> None:
        if not self.context.execute_async_v3(stream.handle):
            raise PolcError(f"TensorRT failed in the graph {self.engine.key.graph}{error.take()}")

    def _capture(self, stream: Stream, error: LastError) -> CapturedGraph | None:
        """The run as one piece; None, now and later, where the engine cannot be captured."""
        stream.begin_capture()
        try:
            self._enqueue(stream, error)
        except PolcError:
            self.engine.captured = False
        try:
            captured = stream.end_capture()
        except CudaError:
            self.engine.captured = False
            return None
        if self.engine.captured:
            return captured
        captured.free()
        return None

    def release(self) -> None:
        """Forgets what was captured: it holds for one set of shapes and one place in memory."""
        self._runs = 0
        self._bound = ()
        if self._captured is not None:
            self._captured.free()
            self._captured = None


class StreamContext:
    """One stream, its memory and the engines' contexts on it; one thread at a time may use it.

    Args:
        trt: the module tensorrt.
        cuda: the device.
        error: takes the errors that TensorRT logs.
    """

    def __init__(self, trt: Any, cuda: Cuda, error: LastError) -> None:
        self.trt = trt
        self.cuda = cuda
        self.error = error
        self.stream = Stream(cuda)
        self._scratch = DeviceBlock(cuda)
        self._tensors: dict[str, _TensorMemory] = {}
        self._executions: dict[int, _Execution] = {}

    def run(
        self, engine: LoadedEngine, feeds: Mapping[str, FloatArray], timed: bool = False
    ) -> tuple[dict[str, FloatArray], float]:
        """Outputs by name, and the seconds that the engine took on the device, 0 unless `timed`.

        Args:
            engine: one that admits the inputs' shapes.
            feeds: its inputs, float32 and contiguous.
            timed: whether to measure.

        Raises:
            PolcError: TensorRT or CUDA failed.
        """
        execution = self._execution(engine)
        shapes = execution.shape({name: feeds[name].shape for name in engine.inputs})
        for name in engine.inputs:
            self._reserve(name, feeds[name].shape)
        for name, shape in shapes.items():
            self._reserve(name, shape)
        size = scratch_size(engine.engine)
        scratch = self._scratch.reserve(max(size, 1)), size
        names = (*engine.inputs, *engine.outputs)
        execution.bind({name: self._tensors[name].device.address for name in names}, scratch)
        for name in engine.inputs:
            self._upload(name, feeds[name])
        for name in engine.outputs:
            self._tensors[name].forget()
        with self.stream.timed(timed):
            execution.start(self.stream, self.error)
        found = self._download(shapes)
        for name in engine.kept:
            self._tensors[name].keep(found[name])
        return found, self.stream.seconds() if timed else 0.0

    def free(self) -> None:
        """Gives everything back."""
        self.cuda.use()
        self.stream.wait()
        for execution in self._executions.values():
            execution.release()
        self._executions.clear()
        for memory in self._tensors.values():
            memory.free()
        self._tensors.clear()
        self._scratch.free()
        self.stream.free()

    def _execution(self, engine: LoadedEngine) -> _Execution:
        if id(engine) not in self._executions:
            self._executions[id(engine)] = _Execution(self.trt, engine, self.stream)
        return self._executions[id(engine)]

    def _reserve(self, name: str, shape: Shape) -> None:
        memory = self._tensors.setdefault(name, _TensorMemory(self.cuda))
        before = memory.device.address
        if memory.device.reserve(4 * int(np.prod(shape, dtype=np.int64))) != before:
            memory.forget()

    def _upload(self, name: str, array: FloatArray) -> None:
        """Copies an input to the device, unless it is there."""
        memory = self._tensors[name]
        if memory.holds(array):
            return
        memory.forget()
        np.copyto(memory.host.array(array.shape), array)
        self.stream.to_device(memory.device.address, memory.host.address, array.nbytes)

    def _download(self, shapes: Mapping[str, Shape]) -> dict[str, FloatArray]:
        """Copies outputs to the host: the one place that waits for the device."""
        staged = {}
        for name, shape in shapes.items():
            memory = self._tensors[name]
            staged[name] = memory.host.array(shape)
            self.stream.to_host(memory.host.address, memory.device.address, staged[name].nbytes)
        self.stream.wait()
        return {name: array.copy() for name, array in staged.items()}


class StreamPool:
    """A fixed number of streams, each made when it is first needed; threads wait for one that is free.

    Args:
        make: makes a stream.
        size: how many there may be.
    """

    def __init__(self, make: Callable[[], StreamContext], size: int) -> None:
        self._make = make
        self._free: list[tuple[int, StreamContext]] = []  # and the thread that had it last
        self._places = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._closed = False

    @contextmanager
    def stream(self) -> Iterator[StreamContext]:
        """A stream for this thread alone; the one it had last, with its arrays in place, if that is free.

        A stream that an exception passes through is freed.
        """
        with self._places:
            stream = self._take()
            try:
                yield stream
            except BaseException:
                with suppress(CudaError):  # the first error is the one to show
                    stream.free()
                raise
            with self._lock:
                if not self._closed:
                    self._free.append((threading.get_ident(), stream))
                    return
            stream.free()

    def close(self) -> None:
        """Frees the streams, those in use once they are given back."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for _, stream in free:
            stream.free()

    def _take(self) -> StreamContext:
        thread = threading.get_ident()
        with self._lock:
            if self._free:
                self._free.sort(key=lambda entry: entry[0] == thread)
                return self._free.pop()[1]
        return self._make()
