"""How much matrix arithmetic each graph of a codec is, from the model's dimensions and the image's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...bitstream.geometry import HYPER_STRIDE, LATENT_STRIDE
from ...bitstream.schedule import Step, schedule
from ...bundle.manifest import Manifest

_SPATIAL_KERNELS = {1: 3, 2: 5, 3: 5, 5: 5, 7: 5}
"""Kernel of the spatial context of the steps that have one."""

_STRIDES = {
    "image": 1,
    "params": LATENT_STRIDE,
    "y_hat": LATENT_STRIDE,
    "y": LATENT_STRIDE,
    "z_hat": HYPER_STRIDE,
}
"""Pixels of the padded image in one row or column of a graph's input."""


def graph_flops(manifest: Manifest, graph: str, height: int, width: int) -> float | None:
    """Operations in the convolutions and linear layers of a graph, two for a multiply-add, for one image.

    Masked taps of the spatial context are counted. Normalisation, activations, gains, copies, and the two
    products inside the attention are not.

    Args:
        manifest: describes the model.
        graph: its name in the bundle.
        height: of the padded image, in pixels.
        width: likewise.

    Returns:
        None where it is not known: graphs of tasks, and models that are described in another way.
    """
    try:
        macs = _macs(manifest.model, graph, height, width)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return None if macs is None else 2.0 * macs


def padded_grid(inputs: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """Height and width of the padded image, in pixels, from the shapes of a graph's inputs by name."""
    for name, stride in _STRIDES.items():
        if name in inputs:
            return stride * inputs[name][-2], stride * inputs[name][-1]
    return None


def _macs(model: Mapping[str, Any], graph: str, height: int, width: int) -> int | None:
    dims, latent, hyper = model["dims"], model["dims"][-1], model["hyper_dim"]
    down = list(zip((3, *dims[:-1]), dims, (5, 3, 3, 3), model["depths"], strict=True))
    hyper_down = list(zip((latent, hyper), (hyper, hyper), (3, 3), model["hyper_depths"], strict=True))
    up = [(o, i, kernel, depth) for i, o, kernel, depth in reversed(down)]
    hyper_up = list(
        zip((hyper, hyper), (hyper, 2 * latent), (3, 3), model["hyper_depths"][::-1], strict=True)
    )
    grid = (height // LATENT_STRIDE, width // LATENT_STRIDE)
    hyper_grid = (height // HYPER_STRIDE, width // HYPER_STRIDE)
    if graph == "analysis":
        return _downward(model, down, (height, width)) + _downward(model, hyper_down, grid)
    if graph == "hyper_analysis":
        return _downward(model, hyper_down, grid)
    if graph == "hyper_synthesis":
        return _upward(model, hyper_up, hyper_grid)
    if graph == "synthesis":
        return _upward(model, up, grid)
    kind, _, index = graph.partition("_")
    return _context(model, schedule(latent)[int(index)], *grid) if kind == "context" else None


_Stages = Sequence[tuple[int, int, int, int]]
"""Channels in, channels out, kernel of the convolution, and blocks of each stage."""


def _downward(model: Mapping[str, Any], stages: _Stages, grid: tuple[int, int]) -> int:
    """Convolutions of stride 2, each with blocks after it."""
    total, (h, w) = 0, grid
    for inputs, outputs, kernel, depth in stages:
        h, w = h // 2, w // 2
        total += h * w * (kernel**2 * inputs * outputs + _blocks(model, outputs, depth))
    return total


def _upward(model: Mapping[str, Any], stages: _Stages, grid: tuple[int, int]) -> int:
    """Transposed convolutions of stride 2, each with blocks before it."""
    total, (h, w) = 0, grid
    for inputs, outputs, kernel, depth in stages:
        total += h * w * (kernel**2 * inputs * outputs + _blocks(model, inputs, depth))
        h, w = 2 * h, 2 * w
    return total


def _blocks(model: Mapping[str, Any], dim: int, depth: int) -> int:
    """Blocks at one position: four projections and the two layers of the MLP each."""
    return depth * dim * (4 * dim + 2 * int(dim * model["mlp_ratio"]))


def _context(model: Mapping[str, Any], step: Step, h: int, w: int) -> int:
    """One coding step; the first of a group computes the group's channel context."""
    steps = schedule(model["dims"][-1])
    params, size = 2 * model["dims"][-1], step.channels.stop - step.channels.start
    last = step.group == steps[-1].group
    count = h * w if step.all_positions else len(step.positions) * (h // 2) * (w // 2)
    macs = count * _SPATIAL_KERNELS.get(step.index, 0) ** 2 * size * 2 * size
    named = model.get("entropy_width")
    outputs = 2 * size
    widths = (outputs, outputs) if last else (outputs * 10 // 6, outputs * 8 // 6)
    first, second = (named, named) if named else widths
    macs += count * ((params + (2 if last else 4) * size) * first + first * second + second * outputs)
    if step.first_of_group:
        width = model.get("context_width") or size
        inputs = params + step.channels.start
        macs += h * w * (25 * inputs * width + 25 * width * width + 9 * width * outputs)
    return macs
