"""A GPU without a GPU: CUDA's runtime API and TensorRT's Python API on the host's memory, for the tests.

Device memory is the host's, and every access to it is checked against what was allocated. Work on a stream is
done when the stream is waited for, not before, so that a missing wait or a buffer reused too early shows. An
engine's bytes name a graph, which ONNX Runtime computes.
"""

from __future__ import annotations

import ctypes
import enum
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from polc_runtime.backends import BackendOptions
from polc_runtime.backends.onnxruntime import OnnxRuntimeBackend
from polc_runtime.bundle import Bundle

GPU, CAPABILITY = "Emulated GPU", (9, 0)
Work = Callable[[], None]


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


class EmulatedRuntime:
    """What `cuda.bindings.runtime` offers, as far as the backend uses it.

    Attributes:
        limit: bytes of device memory.
        to_device: bytes copied to the device so far.
        launches: runs of captured graphs so far.
        blocks: allocated memory by address.
        streams: how many there are.
    """

    cudaError_t = Error
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, limit: int = 1 << 32) -> None:
        self.limit = limit
        self.to_device = 0
        self.launches = 0
        self.streams = 0
        self.blocks: dict[int, Any] = {}

    def cudaGetErrorString(self, code):
        return Error.cudaSuccess, b"emulated error"

    def cudaGetDeviceCount(self):
        return Error.cudaSuccess, 1

    def cudaGetDeviceProperties(self, index):
        major, minor = CAPABILITY
        return Error.cudaSuccess, SimpleNamespace(name=GPU.encode(), major=major, minor=minor)

    def cudaDriverGetVersion(self):
        return Error.cudaSuccess, 13010

    def cudaSetDevice(self, index):
        return (Error.cudaSuccess,)

    def cudaMalloc(self, size):
        if sum(map(ctypes.sizeof, self.blocks.values())) + size > self.limit:
            return Error.cudaErrorMemoryAllocation, None
        block = (ctypes.c_char * size)()
        self.blocks[ctypes.addressof(block)] = block
        return Error.cudaSuccess, ctypes.addressof(block)

    def cudaFree(self, address):
        del self.blocks[address]
        return (Error.cudaSuccess,)

    cudaMallocHost, cudaFreeHost = cudaMalloc, cudaFree

    def check(self, address, size):
        """Fails unless the bytes lie in one allocated block."""
        fits = (at <= address and address + size <= at + ctypes.sizeof(b) for at, b in self.blocks.items())
        assert any(fits), f"{size} bytes at {address:#x} were not allocated"

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        def copy():
            self.check(target, size)
            self.check(source, size)
            ctypes.memmove(target, source, size)
            self.to_device += size * (kind == 1)

        stream.add(copy)
        return (Error.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, flags):
        self.streams += 1
        return Error.cudaSuccess, EmulatedStream()

    def cudaStreamSynchronize(self, stream):
        stream.wait()
        return (Error.cudaSuccess,)

    def cudaStreamDestroy(self, stream):
        assert not stream.work, "a stream is destroyed with work left on it"
        self.streams -= 1
        EmulatedStream.all.pop(int(stream))
        return (Error.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        stream.captured = []
        return (Error.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        work, stream.captured = stream.captured, None
        return (Error.cudaErrorStreamCaptureInvalidated, None) if work == [] else (Error.cudaSuccess, work)

    def cudaGraphInstantiate(self, graph, flags):
        return Error.cudaSuccess, list(graph)

    def cudaGraphDestroy(self, graph):
        return (Error.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        for work in graph:
            stream.add(work)
        return (Error.cudaSuccess,)

    def cudaEventCreate(self):
        return Error.cudaSuccess, SimpleNamespace(at=None)

    def cudaEventRecord(self, event, stream):
        stream.add(lambda: setattr(event, "at", time.perf_counter()))
        return (Error.cudaSuccess,)

    def cudaEventElapsedTime(self, start, end):
        return Error.cudaSuccess, 1000 * (end.at - start.at)

    def cudaEventDestroy(self, event):
        return (Error.cudaSuccess,)


class EmulatedStream:
    """Work that waits to be done; while it is captured, work that is only noted."""

    all: dict[int, EmulatedStream] = {}

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.captured: list[Work] | None = None
        self.all[id(self)] = self

    def __int__(self) -> int:
        return id(self)

    def add(self, work: Work) -> None:
        (self.work if self.captured is None else self.captured).append(work)

    def wait(self) -> None:
        assert self.captured is None, "a stream is waited for while it is captured"
        while self.work:
            self.work.pop(0)()


class EmulatedTensorRt:
    """What `tensorrt` offers, as far as the backend uses it, with the names of one version.

    Args:
        cuda: the device.
        bundle: whose graphs engines name.
        version: of TensorRT.
        scratch: working memory of every context, in bytes.
        capturable: whether contexts can be captured.
    """

    ILogger = type("ILogger", (), {"__init__": lambda self: None})
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    ProfilingVerbosity = SimpleNamespace(NONE="none")

    def __init__(
        self,
        cuda: EmulatedRuntime,
        bundle: Bundle,
        version: str,
        scratch: int = 4096,
        capturable: bool = True,
    ) -> None:
        self.cuda = cuda
        self.bundle = bundle
        self.__version__ = version
        self.scratch = scratch
        self.capturable = capturable
        self.computes = OnnxRuntimeBackend(bundle, BackendOptions(threads=1))
        self.opened: list[str] = []
        self.creators: list[Any] = []
        self.newer = int(version.split(".")[0]) >= 10
        if self.newer:
            self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")

    def Runtime(self, logger):
        return SimpleNamespace(deserialize_cuda_engine=self._open)

    def get_plugin_registry(self):
        """A registry that takes any library but those whose name says otherwise."""

        def load_library(path):
            if "other" in path:
                return None
            self.creators.append(SimpleNamespace(name="NeighborhoodAttention2D", plugin_version="1"))
            return path

        name = "all_creators" if self.newer else "plugin_creator_list"
        return SimpleNamespace(load_library=load_library, **{name: self.creators})

    def _open(self, data: bytes):
        name = data.decode()
        if not name.startswith("engine of "):
            return None
        self.opened.append(name)
        return EmulatedEngine(self, name.removeprefix("engine of "))


class EmulatedEngine:
    def __init__(self, trt: EmulatedTensorRt, name: str) -> None:
        self.trt = trt
        self.graph = trt.bundle.manifest.graph(name)
        self.names = [*self.graph.inputs, *self.graph.outputs]
        self.num_io_tensors = len(self.names)
        self.contexts: weakref.WeakSet[EmulatedContext] = weakref.WeakSet()
        setattr(self, "device_memory_size_v2" if trt.newer else "device_memory_size", trt.scratch)
        if trt.newer:
            self.create_execution_context = lambda strategy: EmulatedContext(self)
        else:
            self.create_execution_context_without_device_memory = lambda: EmulatedContext(self)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_mode(self, name):
        return "in" if name in self.graph.inputs else "out"


class EmulatedContext:
    """A context; before TensorRT 10 only the first of an engine has a profile that nobody set."""

    device_memory = 0

    def __init__(self, engine: EmulatedEngine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        taken = any(context.active_optimization_profile == 0 for context in engine.contexts)
        self.active_optimization_profile = -1 if taken and not engine.trt.newer else 0
        engine.contexts.add(self)

    def set_optimization_profile_async(self, index, handle):
        assert handle in EmulatedStream.all
        self.active_optimization_profile = index
        return True

    def set_input_shape(self, name, shape):
        if self.active_optimization_profile < 0:
            return False
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        sizes = dict(self._sizes())
        return tuple(_side(axis, sizes) for axis in self.engine.graph.outputs[name])

    def _sizes(self) -> Iterator[tuple[str, int]]:
        for name, axes in self.engine.graph.inputs.items():
            for axis, side in zip(axes, self.shapes[name], strict=True):
                if isinstance(axis, str):
                    factor, _, unit = axis.rpartition("*")
                    yield unit, side // int(factor or 1)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, handle):
        stream = EmulatedStream.all[handle]
        if stream.captured is not None and not self.engine.trt.capturable:
            return False
        addresses, shapes, scratch = dict(self.addresses), dict(self.shapes), self.device_memory
        stream.add(lambda: self._compute(addresses, shapes, scratch))
        return True

    def _compute(self, addresses, shapes, scratch):
        trt, graph = self.engine.trt, self.engine.graph
        trt.cuda.check(scratch, trt.scratch)
        feeds = {name: self._at(addresses[name], shapes[name]).copy() for name in graph.inputs}
        for name, value in trt.computes.run(graph.name, feeds).items():
            self._at(addresses[name], value.shape)[...] = value

    def _at(self, address, shape):
        count = int(np.prod(shape))
        self.engine.trt.cuda.check(address, 4 * count)
        return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


def _side(axis: int | str, sizes: dict[str, int]) -> int:
    if isinstance(axis, int):
        return axis
    head, _, extra = axis.partition("+")
    factor, _, unit = head.rpartition("*")
    return int(factor or 1) * sizes[unit] + int(extra or 0)
