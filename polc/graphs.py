"""The graphs a codec is deployed as: names, inputs, outputs and axes, and the modules that compute them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from polc_runtime.bitstream.geometry import LATENT_STRIDE
from polc_runtime.bundle import Axes

from .families.tinylic.codec import Codec
from .tasks.model import TaskModel
from .tasks.registry import check_task_name


class Graph(nn.Module):
    """One deployable function of a model, as a module that an exporter can trace."""

    def __init__(self, model: nn.Module, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Calls the function."""
        return self.function(*inputs)


@dataclass(frozen=True)
class GraphSpec:
    """A graph's interface and module.

    Attributes:
        name: as in the bundle.
        inputs: name and axes of each, in order; all float32.
        outputs: likewise.
        module: computes the outputs from the inputs, positionally.
        exact: whether both sides of a stream must agree on it (the entropy path): fp32 always, batch 1.
    """

    name: str
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]
    module: nn.Module
    exact: bool = False


def codec_graphs(codec: Codec) -> dict[str, GraphSpec]:
    """Every graph of a codec, by name, in the order they run."""
    latent, hyper = codec.config.latent_channels, codec.config.hyper_dim
    image: Axes = ("batch", 3, "64*h", "64*w")
    y: Axes = ("batch", latent, "4*h", "4*w")
    z: Axes = ("batch", hyper, "h", "w")
    quality: Axes = ("batch",)
    params: Axes = ("batch", 2 * latent, "4*h", "4*w")
    specs = [
        GraphSpec(
            "analysis",
            {"image": image, "quality": quality},
            {"y": y, "z": z},
            Graph(codec, codec.analyse),
        ),
        GraphSpec(
            "hyper_analysis", {"y": y, "quality": quality}, {"z": z}, Graph(codec, codec.hyper_analyse)
        ),
        GraphSpec(
            "hyper_synthesis",
            {"z_hat": z, "quality": quality},
            {"params": params},
            Graph(codec, codec.hyper_synthesise),
            exact=True,
        ),
        *(_context_graph(codec, index, params, y) for index in range(len(codec.context.steps))),
        GraphSpec(
            "synthesis",
            {"y_hat": y, "quality": quality},
            {"image": image},
            Graph(codec, lambda y_hat, q: codec.synthesise(y_hat, q).clamp(0, 1)),
        ),
    ]
    return {spec.name: spec for spec in specs}


def _context_graph(codec: Codec, index: int, params: Axes, y: Axes) -> GraphSpec:
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


def task_graphs(name: str, task: TaskModel) -> dict[str, GraphSpec]:
    """The two graphs of a task, by name: `task_NAME` on latents, `pixels_NAME` on normalised images.

    Logits are [batch,classes]; a segmentation's lie on the image's grid, with `family.sizes.extra` more rows
    and columns. Height and width are named units where they are dynamic, numbers where they are fixed.

    Raises:
        CheckpointError: the name fits no graph.
    """
    check_task_name(name)
    rule = task.family.sizes
    rows, columns = rule.fixed or (f"{rule.multiple}*h", f"{rule.multiple}*w")
    height, width = (_scaled(axis, LATENT_STRIDE) for axis in (rows, columns))
    logits: Axes = ("batch", task.classes)
    if task.family.kind == "segmentation":
        logits = (*logits, _plus(height, rule.extra), _plus(width, rule.extra))
    y_hat: Axes = ("batch", task.adapter.expand.in_channels, rows, columns)
    specs = (
        GraphSpec(
            f"task_{name}",
            {"y_hat": y_hat, "quality": ("batch",)},
            {"logits": logits},
            Graph(task, task.forward),
        ),
        GraphSpec(
            f"pixels_{name}",
            {"image": ("batch", 3, height, width)},
            {"logits": logits},
            Graph(task, task.forward_pixels),
        ),
    )
    return {spec.name: spec for spec in specs}


def _scaled(axis: int | str, factor: int) -> int | str:
    """An axis `factor` times as long."""
    if isinstance(axis, int):
        return axis * factor
    count, _, unit = axis.rpartition("*")
    return f"{int(count or 1) * factor}*{unit}"


def _plus(axis: int | str, extra: int) -> int | str:
    """An axis with `extra` more elements."""
    if isinstance(axis, int):
        return axis + extra
    return f"{axis}+{extra}" if extra else axis
