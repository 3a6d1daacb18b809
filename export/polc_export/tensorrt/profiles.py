"""Shape profiles: from sizes of images and batches to the shapes of every input of a graph."""

from __future__ import annotations

import re
from collections.abc import Sequence

from polc_runtime.backends.tensorrt.engine_cache import Range
from polc_runtime.bitstream.geometry import HYPER_STRIDE
from polc_runtime.bundle import GraphFile, Manifest
from polc_runtime.errors import BundleError

from .shapes import Batch, Shapes, Size

_AXIS = re.compile(r"(?:(\d{1,6})\*)?([hw])")


def ranges_of(graph: GraphFile, shapes: Shapes) -> dict[str, Range]:
    """The shapes of each input of a graph.

    Raises:
        BundleError: an axis of an input is none that this program knows.
    """
    batch = Batch() if graph.exact else shapes.batch
    corners = (
        (shapes.min, batch.min),
        (shapes.opt, batch.opt),
        (shapes.max, batch.max),
    )
    return {
        name: Range(*(_shape(graph.name, name, axes, size, count) for size, count in corners))
        for name, axes in graph.inputs.items()
    }


def shapes_for(manifest: Manifest, graph: GraphFile, shapes: Shapes) -> Shapes:
    """What a graph is to take: all of `shapes`, or as much as the rule of its task admits."""
    for task in manifest.tasks:
        if graph.name in task.interfaces():
            return shapes.fitted(task.sizes)
    return shapes


def _shape(graph: str, name: str, axes: Sequence[int | str], size: Size, batch: int) -> tuple[int, ...]:
    units = {"h": size.height // HYPER_STRIDE, "w": size.width // HYPER_STRIDE}
    sides = []
    for axis in axes:
        if isinstance(axis, int):
            sides.append(axis)
        elif axis == "batch":
            sides.append(batch)
        elif match := _AXIS.fullmatch(axis):
            sides.append(int(match[1] or 1) * units[match[2]])
        else:
            raise BundleError(
                f"manifest.json: {graph}: the axis {axis!r} of {name} is none this program knows"
            )
    return tuple(sides)
