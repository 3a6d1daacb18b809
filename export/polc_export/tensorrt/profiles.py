"""Shape profiles: from sizes of images and batches to the shapes of every input of a graph."""

from __future__ import annotations

import re
from collections.abc import Sequence

from polc_runtime.backends.tensorrt.engine_cache import Range
from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.bundle import GraphFile, Manifest
from polc_runtime.errors import BundleError

from .shapes import Batch, Shapes, Size

_AXIS = re.compile(r"(?:(\d{1,6})\*)?([hw])")


def ranges_of(graph: GraphFile, shapes: Shapes, plan: CodingPlan) -> dict[str, Range]:
    """The shapes of each input of a graph.

    Args:
        graph: of the bundle.
        shapes: of the images.
        plan: the bundle's, which says how many pixels a step in each tensor is.

    Raises:
        BundleError: an axis of an input is not one that this program knows.
    """
    unit = _unit(graph, plan)
    batch = Batch() if graph.exact else shapes.batch
    corners = (
        (shapes.min, batch.min),
        (shapes.opt, batch.opt),
        (shapes.max, batch.max),
    )
    return {
        name: Range(*(_shape(graph.name, name, axes, (size, unit), count) for size, count in corners))
        for name, axes in graph.inputs.items()
    }


def shapes_for(manifest: Manifest, graph: GraphFile, shapes: Shapes) -> Shapes:
    """What a graph is to take: all of `shapes`, or as much as the rule of its task admits."""
    for task in manifest.tasks:
        if graph.name in task.interfaces():
            return shapes.fitted(task.sizes, manifest.plan.latent.stride)
    return shapes


def _unit(graph: GraphFile, plan: CodingPlan) -> int:
    """Pixels of the image that `h` and `w` count in the axes of a graph's inputs."""
    for name, axes in graph.inputs.items():
        match = _AXIS.fullmatch(str(axes[-1]))
        if match and name in plan.strides:
            return int(match[1] or 1) * plan.strides[name]
    return plan.pad.multiple


def _shape(
    graph: str, name: str, axes: Sequence[int | str], size_in_units: tuple[Size, int], batch: int
) -> tuple[int, ...]:
    size, unit = size_in_units
    units = {"h": size.height // unit, "w": size.width // unit}
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
                f"manifest.json: {graph}: the axis {axis!r} of {name} is not one that this program knows"
            )
    return tuple(sides)
