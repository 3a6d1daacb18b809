"""CUDA through cuda-bindings: a device, its memory, streams and captured graphs."""

from __future__ import annotations

import ctypes
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BackendUnavailable, PolcError, first_line

INSTALL = "pip install 'polc[tensorrt]'"

RUNTIMES = ("cuda.bindings.runtime", "cuda.cudart")
"""Where the runtime API is: in cuda-bindings by the first name, in cuda-python before 12.7 by the second."""

_GROWTH = 1 << 20
"""Memory is asked for in multiples of this, so that nearly equal sizes share one block."""


class CudaError(PolcError):
    """A CUDA call that failed.

    Attributes:
        code: CUDA's name of the error.
    """

    kind = BackendUnavailable.kind

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        index: by which CUDA knows it.
        name: such as "NVIDIA H100 80GB HBM3".
        compute_capability: such as "9.0".
    """

    index: int
    name: str
    compute_capability: str


class Cuda:
    """The runtime API on one device; every call that fails raises.

    Args:
        api: the runtime module of cuda-bindings.
        index: of the device.

    Raises:
        BackendUnavailable: there is no driver, or no such device.
    """

    def __init__(self, api: Any, index: int = 0) -> None:
        self.api = api
        try:
            count = self.call("cudaGetDeviceCount")
        except CudaError as error:
            raise BackendUnavailable(
                f"no GPU can be used here ({error}); a GPU and NVIDIA's driver for it are needed"
            ) from None
        except Exception as error:  # some releases raise their own where there is no driver library
            raise BackendUnavailable(
                f"no GPU can be used here ({first_line(error)}); a GPU and NVIDIA's driver for it are needed"
            ) from None
        if index >= count:
            raise BackendUnavailable(f"there is no GPU {index} here: CUDA finds {count}")
        properties = self.call("cudaGetDeviceProperties", index)
        name = properties.name.decode() if isinstance(properties.name, bytes) else str(properties.name)
        capability = f"{properties.major}.{properties.minor}"
        self.device = Device(index, name.rstrip("\0"), capability)

    @classmethod
    def open(cls, index: int = 0) -> Cuda:
        """The runtime API of the cuda-bindings that are installed.

        Raises:
            BackendUnavailable: there are none, there is no driver, or no such device.
        """
        return cls(import_runtime(), index)

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function gives besides its error code: nothing, one value, or a tuple.

        Raises:
            CudaError: the code is not that of success.
        """
        code, *values = getattr(self.api, name)(*arguments)
        if code != self.api.cudaError_t.cudaSuccess:
            raise self._error(name, code)
        return values[0] if len(values) == 1 else tuple(values)

    def use(self) -> None:
        """Makes the device this thread's."""
        self.call("cudaSetDevice", self.device.index)

    def _error(self, name: str, code: Any) -> CudaError:
        label = getattr(code, "name", str(code))
        text = self.api.cudaGetErrorString(code)[1]
        message = text.decode() if isinstance(text, bytes) else str(text)
        return CudaError(f"CUDA: {name} failed: {message} ({label})", label)


def gpus() -> str:
    """The newest CUDA that the driver knows and every GPU with its compute capability, for people.

    Raises:
        BackendUnavailable: cuda-bindings, a driver or a GPU is missing.
    """
    cuda = Cuda.open()
    version = cuda.call("cudaDriverGetVersion")
    devices = [Cuda(cuda.api, index).device for index in range(cuda.call("cudaGetDeviceCount"))]
    found = (f"{device.name} ({device.compute_capability})" for device in devices)
    return ", ".join([f"CUDA up to {version // 1000}.{version % 1000 // 10}", *found])


def import_runtime() -> Any:
    """The runtime module of cuda-bindings.

    Raises:
        BackendUnavailable: it is not installed.
    """
    for name in RUNTIMES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the older name is deprecated
                return importlib.import_module(name)
        except ImportError:
            continue
    raise BackendUnavailable(f"the package cuda-bindings is not installed: {INSTALL}")


class DeviceBlock:
    """Memory on the device that grows when more is asked for.

    Attributes:
        address: of its first byte; another one after it grew.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.address = 0
        self.size = 0

    def reserve(self, size: int) -> int:
        """Makes room for `size` bytes, what was inside is lost if it must grow; its address."""
        if size > self.size:
            self.free()
            rounded = -(-size // _GROWTH) * _GROWTH
            self.address = int(self.cuda.call("cudaMalloc", rounded))
            self.size = rounded
        return self.address

    def free(self) -> None:
        """Gives the memory back."""
        if self.address:
            address, self.address, self.size = self.address, 0, 0
            self.cuda.call("cudaFree", address)


class PinnedBlock:
    """Page-locked memory of the host, which the device copies beside other work; it grows likewise."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.address = 0
        self.size = 0

    def array(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The memory as a float32 array, valid until it grows or is freed."""
        count = int(np.prod(shape, dtype=np.int64))
        self._reserve(4 * count)
        memory = (ctypes.c_float * count).from_address(self.address)
        return np.ndarray(shape, np.float32, memoryview(memory))

    def _reserve(self, size: int) -> None:
        if size > self.size:
            self.free()
            rounded = -(-size // _GROWTH) * _GROWTH
            self.address = int(self.cuda.call("cudaMallocHost", rounded))
            self.size = rounded

    def free(self) -> None:
        """Gives the memory back."""
        if self.address:
            address, self.address, self.size = self.address, 0, 0
            self.cuda.call("cudaFreeHost", address)


class Stream:
    """Work on the device, one piece after the other.

    Attributes:
        handle: what other libraries take.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._stream = cuda.call("cudaStreamCreateWithFlags", cuda.api.cudaStreamNonBlocking)
        self._events: tuple[Any, Any] | None = None

    @property
    def handle(self) -> int:
        """The stream's address."""
        return int(self._stream)

    def to_device(self, address: int, host: int, size: int) -> None:
        """Copies bytes from pinned memory, some time soon."""
        kind = self.cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.cuda.call("cudaMemcpyAsync", address, host, size, kind, self._stream)

    def to_host(self, host: int, address: int, size: int) -> None:
        """Copies bytes to pinned memory, which has them after `wait`."""
        kind = self.cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.cuda.call("cudaMemcpyAsync", host, address, size, kind, self._stream)

    def wait(self) -> None:
        """Returns once all is done."""
        self.cuda.call("cudaStreamSynchronize", self._stream)

    def launch(self, captured: CapturedGraph) -> None:
        """Starts what was captured."""
        self.cuda.call("cudaGraphLaunch", captured.handle, self._stream)

    def begin_capture(self) -> None:
        """From here on this thread's work on the stream is noted and not done."""
        mode = self.cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.cuda.call("cudaStreamBeginCapture", self._stream, mode)

    def end_capture(self) -> CapturedGraph:
        """What was noted, ready to be launched.

        Raises:
            CudaError: something among it cannot be captured; the stream can be used all the same.
        """
        graph = self.cuda.call("cudaStreamEndCapture", self._stream)
        try:
            return CapturedGraph(self.cuda, self.cuda.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.cuda.call("cudaGraphDestroy", graph)

    @contextmanager
    def timed(self, wanted: bool) -> Iterator[None]:
        """Marks the work of a block to be measured by `seconds`, if that is wanted."""
        if not wanted:
            yield
            return
        if self._events is None:
            self._events = self.cuda.call("cudaEventCreate"), self.cuda.call("cudaEventCreate")
        self.cuda.call("cudaEventRecord", self._events[0], self._stream)
        yield
        self.cuda.call("cudaEventRecord", self._events[1], self._stream)

    def seconds(self) -> float:
        """What the work of the last timed block took on the device; call it after `wait`."""
        assert self._events is not None, "nothing was timed"
        return float(self.cuda.call("cudaEventElapsedTime", *self._events)) / 1000

    def free(self) -> None:
        """Gives the stream back."""
        for event in self._events or ():
            self.cuda.call("cudaEventDestroy", event)
        self._events = None
        self.cuda.call("cudaStreamDestroy", self._stream)


class CapturedGraph:
    """Work of a stream that can be launched as a whole, again and again, on the same memory."""

    def __init__(self, cuda: Cuda, handle: Any) -> None:
        self.cuda = cuda
        self.handle = handle

    def free(self) -> None:
        """Gives it back."""
        self.cuda.call("cudaGraphExecDestroy", self.handle)
