"""A backend around another: the base of what counts, times or gates the runs of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import Backend, DeviceTimed, FloatArray


class BackendWrapper:
    """Passes everything on to another backend; children override what they change.

    Args:
        backend: runs the graphs.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name = backend.name

    @property
    def device(self) -> str:
        """Where the wrapped backend runs graphs."""
        return self.backend.device

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Runs a graph on the wrapped backend, see `Backend.run`."""
        return self.backend.run(graph, inputs)

    def describe(self) -> dict[str, Any]:
        """The wrapped backend's description."""
        return self.backend.describe()

    def close(self) -> None:
        """Closes the wrapped backend."""
        self.backend.close()


def device_timed(backend: Backend) -> DeviceTimed | None:
    """The backend itself, or the one inside its wrappers, if it can time graphs on its device; else None."""
    while isinstance(backend, BackendWrapper):
        backend = backend.backend
    return backend if isinstance(backend, DeviceTimed) else None
