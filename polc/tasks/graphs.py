"""The graphs of a task: its predictions from latents and, as a baseline, from pixels."""

from __future__ import annotations

from polc_runtime.bitstream.plan import VERSION_1_LATENT_STRIDE as LATENT_STRIDE
from polc_runtime.bundle import Axes

from ..graphs import Graph, GraphSpec
from .model import TaskModel
from .registry import check_task_name


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
