"""Runs a graph and checks the shapes of its outputs, since a bundle's parts may not match."""

from __future__ import annotations

from collections.abc import Mapping

from ..backends import Backend, FloatArray
from ..errors import BundleError


def run(
    backend: Backend, graph: str, feeds: Mapping[str, FloatArray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, FloatArray]:
    """Outputs of a graph by name.

    Args:
        backend: runs it.
        graph: its name in the bundle.
        feeds: float32 arrays by name.
        shapes: of the outputs that it must have; there may be others.

    Raises:
        BundleError: it takes something else, or an output is missing or has another shape.
    """
    try:
        outputs = backend.run(graph, feeds)
    except KeyError as error:
        given = ", ".join(feeds)
        raise BundleError(f"the bundle's graph {graph} takes {error}, where there are {given}") from None
    require(graph, outputs, shapes)
    return outputs


def require(graph: str, outputs: Mapping[str, FloatArray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Checks what a graph gave.

    Args:
        graph: its name, for the message.
        outputs: by name.
        shapes: of those that must be there.

    Raises:
        BundleError: an output is missing or has another shape.
    """
    for name, shape in shapes.items():
        found = outputs[name].shape if name in outputs else None
        if found != shape:
            problem = "is missing" if found is None else f"has the shape {list(found)}"
            raise BundleError(f"the bundle's graph {graph}: {name} {problem}, expected {list(shape)}")
