"""The coding plan in a manifest: its one parser, and the plan of bundles that state none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..bitstream.container import QUALITY_UNIT
from ..bitstream.plan import (
    MAX_STEPS,
    VERSION_1_HYPER_STRIDE,
    VERSION_1_LATENT_STRIDE,
    VERSION_1_PAD,
    CodingPlan,
    Hyper,
    Pad,
    Plane,
    Quality,
    Reach,
)
from ..bitstream.schedule import ALL_POSITIONS, Position, Step, nine_steps
from ..errors import BundleError
from .fields import Fields, is_size

KEY = "coding"
HYPER_GRAPH = "hyper_synthesis"
CONVOLUTIONS = (5, 3, 3, 3)
"""Kernels of the analysis of the nine-step codec; its synthesis has them the other way round."""
HYPER_CONVOLUTIONS = (3, 3)

_MAX_DEPTH = 1 << 10
_MAX_PIXELS = 1 << 12
_MAX_QUALITY = 65535 / QUALITY_UNIT
_PARITIES = [[row, column] for row in (0, 1) for column in (0, 1)]


def parse_plan(root: Fields) -> CodingPlan:
    """The plan of a manifest: what its key `coding` states, else that of formats 1.0 to 1.4.

    Args:
        root: the whole manifest.

    Raises:
        BundleError: a field is missing or wrong, or a channel and position is coded never or twice.
    """
    if KEY not in root.value:
        low, high = root.numbers("quality_range", 2)
        return nine_step_plan(root.flat("model"), (low, high), f"{root.where}: model")
    fields = root.section(KEY)
    pad, latent = fields.section("pad"), _plane(fields.section("latent"))
    hyper = None
    if fields.value.get("hyper") is not None:
        section = fields.section("hyper")
        plane = _plane(section)
        hyper = Hyper(plane.channels, plane.stride, section.get("graph", str))
    plan = CodingPlan(
        pad=Pad(pad.size("multiple", _MAX_PIXELS), pad.size("min", _MAX_PIXELS)),
        quality=_quality(fields.section("quality")),
        latent=latent,
        hyper=hyper,
        steps=_steps(fields, latent.channels),
        reach=None if fields.value.get("reach") is None else _reach(fields.section("reach")),
        macs=_macs(fields),
    )
    _check(plan, fields)
    return plan


def nine_step_plan(
    model: dict[str, Any], qualities: tuple[float, float], where: str = "the model"
) -> CodingPlan:
    """The plan of the nine-step codec with neighbourhood attention, from its dimensions.

    Args:
        model: `dims`, `depths`, `hyper_dim`, `hyper_depths`, `kernel_size` and `hyper_kernel_size`.
        qualities: smallest and largest.
        where: what messages call the model.

    Raises:
        BundleError: a dimension is missing or not usable.
    """
    fields = Fields(model, where)
    dims = fields.get("dims", list)
    if not dims or not all(is_size(width) for width in dims):
        raise fields.wrong("dims", "not a list of widths")
    low, high = qualities
    if not 1 <= low <= high <= 8:
        raise BundleError(f"{where}: the qualities {low:g} to {high:g} are not a range within 1 to 8")
    try:
        steps = nine_steps(dims[-1])
    except ValueError as error:
        raise BundleError(f"{where}: dims: {error}") from None
    return CodingPlan(
        pad=VERSION_1_PAD,
        quality=Quality(low, high, min(max(4.0, low), high)),
        latent=Plane(dims[-1], VERSION_1_LATENT_STRIDE),
        hyper=Hyper(fields.size("hyper_dim"), VERSION_1_HYPER_STRIDE, HYPER_GRAPH),
        steps=steps,
        reach=_nine_step_reach(fields) if "depths" in fields.value else None,
    )


def _nine_step_reach(fields: Fields) -> Reach:
    """The reach of the nine-step codec's networks, from its dimensions."""
    depths = fields.sizes("depths", 4, _MAX_DEPTH, least=0)
    hyper_depths = fields.sizes("hyper_depths", 2, _MAX_DEPTH, least=0)
    kernel, hyper_kernel = fields.size("kernel_size"), fields.size("hyper_kernel_size")
    latent, hyper = VERSION_1_LATENT_STRIDE, VERSION_1_HYPER_STRIDE
    y = _downward(0, CONVOLUTIONS, depths, kernel)
    return Reach(
        y=latent * y,
        z=hyper * _downward(y, HYPER_CONVOLUTIONS, hyper_depths, hyper_kernel),
        image=_upward(0, CONVOLUTIONS[::-1], depths[::-1], kernel),
        min=max(VERSION_1_PAD.min, latent * kernel, hyper * hyper_kernel),
    )


def _downward(reach: int, convolutions: Sequence[int], depths: Sequence[int], attention: int) -> int:
    """Reach behind stages of a convolution of stride 2 and then attention blocks, in positions."""
    for kernel, depth in zip(convolutions, depths, strict=True):
        # Output i reads inputs 2i - kernel//2 .. 2i + kernel//2; a window slides by kernel//2 at an edge.
        reach = -(-(reach + kernel // 2) // 2) + depth * (attention // 2)
    return reach


def _upward(reach: int, convolutions: Sequence[int], depths: Sequence[int], attention: int) -> int:
    """Reach behind stages of attention blocks and then a transposed convolution of stride 2, in positions."""
    for kernel, depth in zip(convolutions, depths, strict=True):
        # Output i reads inputs up to (i + kernel//2) // 2.
        reach = 2 * (reach + depth * (attention // 2)) + kernel // 2
    return reach


def _plane(fields: Fields) -> Plane:
    return Plane(fields.size("channels"), fields.size("stride", _MAX_PIXELS))


def _quality(fields: Fields) -> Quality:
    low, high = fields.numbers("range", 2)
    default = fields.number("default")
    if not 0 < low <= default <= high <= _MAX_QUALITY:
        raise fields.wrong(
            "range", f"{low:g} to {high:g} with the default {default:g}, expected positive numbers in order"
        )
    if low * QUALITY_UNIT % 1 or high * QUALITY_UNIT % 1:
        raise fields.wrong(
            "range", f"{low:g} to {high:g}, which are not multiples of 1/{QUALITY_UNIT} as files hold them"
        )
    return Quality(low, high, default)


def _reach(fields: Fields) -> Reach:
    y, z, image = (fields.size(name, 1 << 20, least=0) for name in ("y", "z", "image"))
    return Reach(y, z, image, fields.size("min", 1 << 20))


def _macs(fields: Fields) -> dict[str, float]:
    found = Fields(fields.get("macs", dict, {}), f"{fields.where}: macs")
    return {name: abs(found.number(name)) for name in found.value}


def _steps(fields: Fields, channels: int) -> tuple[Step, ...]:
    found = fields.sections("steps")
    if not 1 <= len(found) <= MAX_STEPS:
        raise fields.wrong("steps", f"a list of {len(found)}, expected 1 to {MAX_STEPS}")
    return tuple(_step(index, step, channels) for index, step in enumerate(found))


def _step(index: int, fields: Fields, channels: int) -> Step:
    graph = None if fields.value.get("graph") is None else fields.get("graph", str)
    start, stop = fields.sizes("channels", 2, channels, least=0)
    if start >= stop:
        raise fields.wrong("channels", f"{start} to {stop}, which holds none")
    return Step(index, graph, slice(start, stop), _positions(fields))


def _positions(fields: Fields) -> tuple[Position, ...]:
    found = fields.value.get("positions")
    if found == "all":
        return ALL_POSITIONS
    if isinstance(found, dict):
        raise fields.wrong("positions", f"{', '.join(map(str, found))}, which a newer polc reads: upgrade it")
    if not isinstance(found, list) or not found or not all(map(_is_position, found)):
        raise fields.wrong("positions", 'neither "all" nor a list of [row parity, column parity]')
    return tuple((row, column) for row, column in found)


def _is_position(value: Any) -> bool:
    return value in _PARITIES and all(type(parity) is int for parity in value)


def _check(plan: CodingPlan, fields: Fields) -> None:
    """Refuses a plan that codes a channel and position never or twice, or whose sizes do not fit together."""
    pad, strides = plan.pad, [plan.latent.stride, *([plan.hyper.stride] if plan.hyper else [])]
    if pad.min % pad.multiple or any(pad.multiple % stride for stride in strides):
        raise fields.wrong("pad", "not made of multiples of each other and of the latents' strides")
    if any(not step.all_positions for step in plan.steps) and pad.multiple // plan.latent.stride % 2:
        raise fields.wrong("pad", "such that latents can have odd sides, which steps by parity cannot code")
    count = np.zeros((plan.latent.channels, 2, 2), np.int64)
    for step in plan.steps:
        if step.all_positions:
            count[step.channels] += 1
        for row, column in step.positions:
            count[step.channels, row, column] += 1
    if (count != 1).any():
        channel, row, column = (int(i) for i in np.argwhere(count != 1)[0])
        raise fields.wrong(
            "steps",
            f"such that channel {channel} is coded {count[channel, row, column]} times at the positions "
            f"[{row}, {column}], expected once",
        )
    without = [step.index for step in plan.steps if step.graph is None]
    if without and (plan.hyper is not None or len(without) < len(plan.steps)):
        raise fields.wrong("steps", "a mix: with a hyper-latent each step needs a graph, without one none")
    if not without and plan.hyper is None:
        raise fields.wrong("hyper", "null, but the steps have graphs, which need its outputs")
