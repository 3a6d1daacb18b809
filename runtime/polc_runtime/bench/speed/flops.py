"""How much arithmetic each graph of a codec is, from the model's dimensions and the picture's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...bitstream.geometry import HYPER_STRIDE, LATENT_STRIDE
from ...bitstream.schedule import Step, schedule

_SPATIAL_KERNELS = {1: 3, 2: 5, 3: 5, 5: 5, 7: 5}
"""Kernel of the spatial context of the steps that have one."""

_STRIDES = {
    "image": 1,
    "params": LATENT_STRIDE,
    "y_hat": LATENT_STRIDE,
    "y": LATENT_STRIDE,
    "z_hat": HYPER_STRIDE,
}
"""Pixels of the padded picture that one row or column of a graph's input stands for."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, two for a multiplication and its addition.

    Attributes:
        gemm: of convolutions, transposed convolutions and linear layers: what matrix products could do.
        attention: of the products of queries with keys and of weights with values.
    """

    gemm: int = 0
    attention: int = 0

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.gemm + other.gemm, self.attention + other.attention)


def graph_flops(
    model: Mapping[str, Any], graph: str, height: int, width: int, batch: int = 1
) -> Flops | None:
    """The arithmetic of one run of a graph.

    Normalisation, activations, gains and copies are not counted; masked taps of the spatial context are.

    Args:
        model: the model's dimensions, as the manifest has them.
        graph: its name in the bundle.
        height: of the padded picture, in pixels.
        width: likewise.
        batch: pictures in one run.

    Returns:
        None where it is not known: graphs of tasks, and models described otherwise.
    """
    try:
        found = _graph(model, graph, height, width)
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return None if found is None else Flops(batch * found.gemm, batch * found.attention)


def padded_grid(inputs: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """Height and width of the padded picture, in pixels, from the shapes of a graph's inputs by name."""
    for name, stride in _STRIDES.items():
        if name in inputs:
            return stride * inputs[name][-2], stride * inputs[name][-1]
    return None


def _graph(model: Mapping[str, Any], graph: str, height: int, width: int) -> Flops | None:
    dims, latent, hyper = model["dims"], model["dims"][-1], model["hyper_dim"]
    down = list(zip((3, *dims[:-1]), dims, (5, 3, 3, 3), model["depths"], strict=True))
    hyper_down = list(zip((latent, hyper), (hyper, hyper), (3, 3), model["hyper_depths"], strict=True))
    up = [(o, i, kernel, depth) for i, o, kernel, depth in reversed(down)]
    hyper_up = list(
        zip((hyper, hyper), (hyper, 2 * latent), (3, 3), model["hyper_depths"][::-1], strict=True)
    )
    k, hyper_k = model["kernel_size"], model["hyper_kernel_size"]
    grid = (height // LATENT_STRIDE, width // LATENT_STRIDE)
    hyper_grid = (height // HYPER_STRIDE, width // HYPER_STRIDE)
    if graph == "analysis":
        return _downward(model, down, k, (height, width)) + _downward(model, hyper_down, hyper_k, grid)
    if graph == "hyper_analysis":
        return _downward(model, hyper_down, hyper_k, grid)
    if graph == "hyper_synthesis":
        return _upward(model, hyper_up, hyper_k, hyper_grid)
    if graph == "synthesis":
        return _upward(model, up, k, grid)
    kind, _, index = graph.partition("_")
    return _context(model, schedule(latent)[int(index)], *grid) if kind == "context" else None


_Stages = Sequence[tuple[int, int, int, int]]
"""Channels in, channels out, kernel of the convolution, and blocks of each stage."""


def _downward(model: Mapping[str, Any], stages: _Stages, kernel_size: int, grid: tuple[int, int]) -> Flops:
    """Convolutions of stride 2, each with blocks after it."""
    total, (h, w) = Flops(), grid
    for inputs, outputs, kernel, depth in stages:
        h, w = h // 2, w // 2
        total += Flops(2 * h * w * kernel**2 * inputs * outputs)
        total += _blocks(model, outputs, depth, kernel_size, h, w)
    return total


def _upward(model: Mapping[str, Any], stages: _Stages, kernel_size: int, grid: tuple[int, int]) -> Flops:
    """Transposed convolutions of stride 2, each with blocks before it."""
    total, (h, w) = Flops(), grid
    for inputs, outputs, kernel, depth in stages:
        total += _blocks(model, inputs, depth, kernel_size, h, w)
        total += Flops(2 * h * w * kernel**2 * inputs * outputs)
        h, w = 2 * h, 2 * w
    return total


def _blocks(model: Mapping[str, Any], dim: int, depth: int, kernel_size: int, h: int, w: int) -> Flops:
    """Blocks: four projections and the two layers of the MLP, and attention to a neighbourhood."""
    hidden = int(dim * model["mlp_ratio"])
    neighbours = min(kernel_size, h) * min(kernel_size, w)
    pixels = depth * h * w
    return Flops(2 * pixels * dim * (4 * dim + 2 * hidden), 2 * pixels * 2 * neighbours * dim)


def _context(model: Mapping[str, Any], step: Step, h: int, w: int) -> Flops:
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
    return Flops(2 * macs)
