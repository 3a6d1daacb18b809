"""What a backend is: something that runs a bundle's graphs on arrays; and how to find one by name."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailable, ResourceError, UsageError, first_line
from ..limits import MAX_THREADS
from ..processors import chosen_threads

FloatArray = NDArray[np.float32]
ENTRY_POINTS = "polc.backends"

CPU, CUDA = DEVICES = ("cpu", "cuda")
"""Where graphs can be asked to run."""

PRECISIONS = ("fp32", "fp16", "fp64")
"""Precisions that can be asked for; fp64 of the backend `torch` alone."""

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|cannot allocate memory|can't allocate memory|bad_alloc|bad allocation"
    r"|failed to allocate|smaller than requested bytes|cudaErrorMemoryAllocation|ALLOC_FAILED",
    re.IGNORECASE,
)
"""What ONNX Runtime, torch, TensorRT and CUDA say where memory runs out."""


@dataclass(frozen=True)
class BackendOptions:
    """How to run.

    Attributes:
        precision: of `PRECISIONS`, of the graphs that may be in any.
        threads: CPU threads of one graph; None for the number in `POLC_THREADS`, and where that is not set
            for the backend's own: of ONNX Runtime as many as `polc_runtime.processors` counts.
        native_ops: whether the native operators serve where they are there; without them portable bodies do.
        device: of `DEVICES`. Backends that run on one of them alone do so whatever is asked for.
        checkpoint: file of the model's weights, for the backend `torch`, which runs no graph of the bundle.

    Raises:
        UsageError: no device or precision has that name, or the number of threads is not positive.
    """

    precision: str = "fp32"
    threads: int | None = None
    native_ops: bool = True
    device: str = CPU
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        for what, name, known in (
            ("device", self.device, DEVICES),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in known:
                raise UsageError(f"no {what} is named {name!r}; there are {', '.join(known)}")
        if self.threads is None:
            object.__setattr__(self, "threads", chosen_threads())
        elif type(self.threads) is not int or not 1 <= self.threads <= MAX_THREADS:
            raise UsageError(f"threads must be a whole number from 1 to {MAX_THREADS}, got {self.threads!r}")


class Backend(Protocol):
    """Runs the graphs of one model; safe to call from several threads."""

    @property
    def name(self) -> str:
        """Name of the backend."""
        ...

    @property
    def device(self) -> str:
        """Where the graphs run, of `DEVICES`."""
        ...

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Outputs of a graph by name.

        Args:
            graph: its name in the bundle.
            inputs: float32 arrays by name; names the graph does not take are ignored.

        Raises:
            UsageError: the backend is closed.
            ResourceError: memory ran out.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What runs the graphs, as JSON-able data; `device` says where, unless that is the processor."""
        ...

    def close(self) -> None:
        """Frees what the backend holds; it cannot run graphs any more."""
        ...


class BackendBase(ABC):
    """What backends have in common: they refuse to run once closed, and name running out of memory.

    Attributes:
        name: of the backend.
        device: where the graphs run, of `DEVICES`.
        options: how to run.
    """

    name: str
    device: str = CPU

    def __init__(self, options: BackendOptions) -> None:
        self.options = options
        self._closed = False

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Outputs of a graph by name, see `Backend.run`."""
        if self._closed:
            raise UsageError(f"the backend {self.name} is closed: make another to run {graph}")
        try:
            return self._run(graph, inputs)
        except Exception as error:
            cause = error.__cause__ or error
            if isinstance(cause, MemoryError) or _NO_MEMORY.search(str(cause)):
                raise ResourceError(
                    f"memory ran out in the graph {graph} on the backend {self.name}; use smaller images or "
                    f"fewer at once ({first_line(cause)})"
                ) from error
            raise

    def describe(self) -> dict[str, Any]:
        """What runs the graphs, see `Backend.describe`."""
        return {"name": self.name, "precision": self.options.precision, "threads": self.options.threads}

    def close(self) -> None:
        """Frees what the backend holds, see `Backend.close`."""
        self._closed = True

    @abstractmethod
    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Outputs of a graph; errors of other libraries are the causes of those it raises."""


@runtime_checkable
class DeviceTimed(Protocol):
    """A backend that can time graphs on its device, without the copies between it and the host.

    Attributes:
        clock: what it times by, for people, such as "CUDA events".
    """

    clock: str

    def time_graphs(self) -> None:
        """Begins to time runs, which may make each a little slower."""
        ...

    def graph_seconds(self) -> dict[str, float]:
        """Seconds on the device by graph, each the sum of its runs since the last call; then forgets them."""
        ...


Factory = Callable[[Bundle, BackendOptions], Backend]

BUILT_IN = {
    "onnxruntime": "polc_runtime.backends.onnxruntime:OnnxRuntimeBackend",
    "onnxruntime-cuda": "polc_runtime.backends.onnxruntime_cuda:OnnxRuntimeCudaBackend",
    "tensorrt": "polc_runtime.backends.tensorrt.backend:TensorRtBackend",
}
"""Backends of the runtime itself: name -> "module:attribute"."""

INSTALL_ORT_CUDA = "pip uninstall onnxruntime && pip install onnxruntime-gpu"
"""What brings ONNX Runtime's CUDA provider: both packages hold one module, so only one can be there."""

_ON_DEVICE = {("onnxruntime", CUDA): "onnxruntime-cuda"}
"""Backends that have another name on a device."""


def backend_on(name: str, device: str) -> str:
    """What serves as the backend `name` on a device: for `onnxruntime` on `cuda`, `onnxruntime-cuda`."""
    return _ON_DEVICE.get((name, device), name)


def backend_names() -> list[str]:
    """Names of every backend that is installed, the runtime's own first."""
    found = (point.name for point in metadata.entry_points(group=ENTRY_POINTS))
    return list(dict.fromkeys([*BUILT_IN, *found]))


def make_backend(name: str | Backend, bundle: Bundle, options: BackendOptions) -> Backend:
    """A backend by name, on the device asked for; others than the runtime's own come from entry points.

    One that is made already, such as a wrapper around another, is given back as it is.

    Raises:
        BackendUnavailable: no backend has that name, or what it needs is not installed.
    """
    if not isinstance(name, str):
        return name
    name = backend_on(name, options.device)
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        factory: Factory = getattr(import_module(module), attribute)
        return factory(bundle, options)
    for point in metadata.entry_points(group=ENTRY_POINTS, name=name):
        try:
            factory = point.load()
        except ImportError as error:
            raise BackendUnavailable(
                f"the backend {name} needs {error.name or error}, which is not installed: "
                "pip install 'polc[export]'"
            ) from None
        return factory(bundle, options)
    raise BackendUnavailable(f"no backend is named {name!r}; there are {', '.join(backend_names())}")
