"""Runs a bundle's graphs and compares what they give with what the model must: no bundle need fit itself."""

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
    for name, shape in shapes.items():
        found = outputs[name].shape if name in outputs else None
        if found != shape:
            told = "is missing" if found is None else f"has the shape {list(found)}"
            raise BundleError(f"the bundle's graph {graph}: {name} {told}, expected {list(shape)}")
    return outputs
