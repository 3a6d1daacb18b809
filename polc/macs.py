"""Multiply-accumulates of graphs, counted while torch runs them on shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from polc_runtime.bitstream.plan import Pad

from .attention import attention_kernel
from .graphs import GraphSpec, sizes_of


def macs_per_pixel(graphs: Mapping[str, GraphSpec], pad: Pad) -> dict[str, float]:
    """Multiply-accumulates of a codec's graphs per pixel of the padded image, by name, to three decimals.

    Counted are convolutions, linear layers and the two products of attention, on the smallest image that is
    ever coded: where a neighbourhood is larger than the map, the map's size counts. Masked weights count.
    Normalisation, activations and factors do not.

    Args:
        graphs: the codec's, whose `h` and `w` count `pad.multiple` pixels.
        pad: how images are padded.
    """
    side = pad.min // pad.multiple
    units = {"batch": 1, "h": side, "w": side}
    return {name: round(_macs(graph, units) / pad.min**2, 3) for name, graph in graphs.items()}


def _macs(graph: GraphSpec, units: Mapping[str, int]) -> float:
    shapes = [sizes_of(axes, units) for axes in graph.inputs.values()]
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.polc.na2d: _attention_flops})
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), attention_kernel("operator"), counter:
        graph.module(*(torch.ones(shape) for shape in shapes))
    return counter.get_total_flops() / 2


def _attention_flops(q: Any, k: Any, v: Any, rpb: Any, kernel_size: int, *rest: Any, **others: Any) -> int:
    """Of the products of queries with keys, and of weights with values; shapes [B,H,W,heads,dim]."""
    batch, height, width, heads, dim = q
    neighbours = min(kernel_size, height) * min(kernel_size, width)
    return int(2 * 2 * batch * height * width * heads * dim * neighbours)
