"""What a backend is: something that runs a bundle's graphs on arrays; and how to find one by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BackendUnavailable
from ..tiles import TILE_PIXELS

FloatArray = NDArray[np.float32]
ENTRY_POINTS = "polc.backends"


@dataclass(frozen=True)
class BackendOptions:
    """How to run.

    Attributes:
        precision: fp32 or fp16, of the graphs that may be either.
        threads: CPU threads of one graph; None for as many as the backend likes.
        native_ops: whether the native operators serve where they are there; without them portable bodies do.
        tile_pixels: largest image that analysis and synthesis run on at once; larger ones are cut in tiles.
    """

    precision: str = "fp32"
    threads: int | None = None
    native_ops: bool = True
    tile_pixels: int = TILE_PIXELS


class Backend(Protocol):
    """Runs the graphs of one model; safe to call from several threads."""

    name: str

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Outputs of a graph by name.

        Args:
            graph: its name in the bundle.
            inputs: float32 arrays by name; names the graph does not take are ignored.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What runs the graphs, as JSON-able data; `device` says where, unless that is the processor."""
        ...

    def close(self) -> None:
        """Frees what the backend holds."""
        ...


Factory = Callable[[Bundle, BackendOptions], Backend]

BUILT_IN = {"onnxruntime": "polc_runtime.backends.onnxruntime:OnnxRuntimeBackend"}
"""Backends of the runtime itself: name -> "module:attribute"."""


def backend_names() -> list[str]:
    """Names of every backend that is installed, the runtime's own first."""
    found = (point.name for point in metadata.entry_points(group=ENTRY_POINTS))
    return list(dict.fromkeys([*BUILT_IN, *found]))


def make_backend(name: str | Backend, bundle: Bundle, options: BackendOptions) -> Backend:
    """A backend by name; others than the runtime's own come from the entry points `polc.backends`.

    One that is made already, such as a wrapper around another, is given back as it is.

    Raises:
        BackendUnavailable: nobody has that name, or what it needs is not installed.
    """
    if not isinstance(name, str):
        return name
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
