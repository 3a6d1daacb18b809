"""The graphs that a codec of this family is deployed as."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from polc_runtime.bundle import Axes

from ...graphs import Graph, GraphSpec

if TYPE_CHECKING:
    from .codec import TinyLicCodec


def codec_graphs(codec: TinyLicCodec) -> dict[str, GraphSpec]:
    """Every graph of a codec, by name, in the order they run; a model of one rate takes no `quality`."""
    latent, hyper = codec.config.latent_channels, codec.config.hyper_dim
    image: Axes = ("batch", 3, "64*h", "64*w")
    y: Axes = ("batch", latent, "4*h", "4*w")
    z: Axes = ("batch", hyper, "h", "w")
    params: Axes = ("batch", 2 * latent, "4*h", "4*w")

    def graph(
        name: str,
        inputs: dict[str, Axes],
        outputs: dict[str, Axes],
        function: Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]],
        exact: bool = False,
    ) -> GraphSpec:
        if codec.config.levels:
            return GraphSpec(name, {**inputs, "quality": ("batch",)}, outputs, Graph(codec, function), exact)
        fixed = Graph(codec, lambda x: function(x, x.new_ones(x.shape[0])))
        return GraphSpec(name, inputs, outputs, fixed, exact)

    specs = [
        graph("analysis", {"image": image}, {"y": y, "z": z}, codec.analyse),
        graph("hyper_analysis", {"y": y}, {"z": z}, codec.hyper_analyse),
        graph("hyper_synthesis", {"z_hat": z}, {"params": params}, codec.hyper_synthesise, exact=True),
        *(_context_graph(codec, index, params, y) for index in range(len(codec.context.steps))),
        graph("synthesis", {"y_hat": y}, {"image": image}, lambda x, q: codec.synthesise(x, q).clamp(0, 1)),
    ]
    return {spec.name: spec for spec in specs}


def _context_graph(codec: TinyLicCodec, index: int, params: Axes, y: Axes) -> GraphSpec:
    """The graph of one coding step.

    The first step of a group gives the group's channel context too, unless it is the group's only step;
    step 0 reads no latent, since nothing is decoded before it.
    """
    context = codec.context
    step = context.steps[index]
    size = step.channels.stop - step.channels.start
    context_axes: Axes = ("batch", 2 * size, "4*h", "4*w")
    whole = step.all_positions
    shape: Axes = (
        "batch",
        size if whole else size * len(step.positions),
        "4*h" if whole else "2*h",
        "4*w" if whole else "2*w",
    )
    first = context.first_of_group[index]
    group = context.group_of[index]
    gives_context = first and group in context.group_of[index + 1 :]
    inputs: dict[str, Axes] = {"params": params}
    if index > 0:
        inputs["y_hat"] = y
    if not first:
        inputs["channel_context"] = context_axes
    outputs = {"scales": shape, "means": shape}
    if gives_context:
        outputs["channel_context"] = context_axes

    def function(
        params: Tensor, y_hat: Tensor | None = None, channel_context: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        if channel_context is None:
            channel_context = context.channel_context(group, params, y_hat)
        scales, means = context.step_parameters(index, params, y_hat, channel_context)
        return (scales, means, channel_context) if gives_context else (scales, means)

    return GraphSpec(f"context_{index}", inputs, outputs, Graph(codec, function), exact=True)
