"""Coding steps: which channels and positions of the latent each codes, and in which order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Position = tuple[int, int]

ALL_POSITIONS: tuple[Position, ...] = ()
"""`Step.positions` of a step that codes the whole grid, in raster order, instead of chosen parities."""

MIN_CHANNELS = 4

STEP_COUNT = 9
"""Coding steps of bitstream version 1."""

# Group and (row parity, column parity) of each step of version 1, in coding order.
_NINE_STEPS: tuple[tuple[int, tuple[Position, ...]], ...] = (
    (0, ((0, 0),)),
    (0, ((1, 1),)),
    (0, ((0, 1),)),
    (0, ((1, 0),)),
    (1, ((0, 1), (1, 0))),
    (1, ((0, 0), (1, 1))),
    (2, ((0, 0), (1, 1))),
    (2, ((0, 1), (1, 0))),
    (3, ALL_POSITIONS),
)


@dataclass(frozen=True)
class Step:
    """One coding step.

    Attributes:
        index: its place in the coding order, from 0.
        graph: that gives its scales and means; the hyper-latent's graph itself where that gives them, None
            for a step with the factorised prior.
        channels: of the latent, that it codes.
        positions: (row parity, column parity) of the positions it codes, in push order;
            `ALL_POSITIONS` (empty) where it codes every position.
    """

    index: int
    graph: str | None
    channels: slice
    positions: tuple[Position, ...]

    @property
    def all_positions(self) -> bool:
        """Whether the step codes the whole grid at once."""
        return self.positions == ALL_POSITIONS

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a bundle's manifest."""
        positions = "all" if self.all_positions else [list(position) for position in self.positions]
        return {
            "graph": self.graph,
            "channels": [self.channels.start, self.channels.stop],
            "positions": positions,
        }

    def shape(self, h: int, w: int) -> tuple[int, int, int]:
        """Shape [c, h', w'] of the step's values on a latent grid of `h` x `w`.

        Raises:
            ValueError: If the step codes parities, and `h` or `w` is odd or below 2.
        """
        channels = self.channels.stop - self.channels.start
        if self.all_positions:
            return channels, h, w
        _check_grid(h, w)
        return channels * len(self.positions), h // 2, w // 2


def group_sizes(channels: int) -> tuple[int, int, int, int]:
    """Channels of the four groups, which sum to `channels`.

    The bounds are ceil(M cos(pi t / 8)), t = 0..4 (POLC.md, "Entropy model"); below 14 channels
    they are moved down where a group would be empty.

    Raises:
        ValueError: If there are fewer than 4 channels.
    """
    if channels < MIN_CHANNELS:
        raise ValueError(f"the latent needs at least {MIN_CHANNELS} channels, got channels={channels}")
    bounds = [channels]
    for t in (1, 2, 3):
        bounds.append(min(math.ceil(channels * math.cos(math.pi * t / 8)), bounds[-1] - 1))
    return bounds[0] - bounds[1], bounds[1] - bounds[2], bounds[2] - bounds[3], bounds[3]


def nine_steps(channels: int) -> tuple[Step, ...]:
    """The steps of bitstream version 1 for a latent of `channels` channels, in coding order.

    Raises:
        ValueError: If there are fewer than 4 channels.
    """
    starts, start = [], 0
    for size in group_sizes(channels):
        starts.append(slice(start, start + size))
        start += size
    return tuple(
        Step(i, f"context_{i}", starts[group], positions) for i, (group, positions) in enumerate(_NINE_STEPS)
    )


def gather(latent: NDArray[Any], step: Step) -> NDArray[Any]:
    """Take a step's values out of a latent [M, h, w], in push order.

    Returns:
        A contiguous copy of shape `step.shape(h, w)`; flattened in C order it is the order in
        which the symbols are pushed: all channels of the first position, then of the second.

    Raises:
        ValueError: If the latent is not [M, h, w] with the step's channels, or h or w is odd where the step
            codes parities.
    """
    _check_latent(latent, step)
    part = latent[step.channels]
    if step.all_positions:
        return np.array(part, order="C")
    return np.concatenate([part[:, row::2, column::2] for row, column in step.positions])


def scatter(latent: NDArray[Any], step: Step, values: NDArray[Any]) -> None:
    """Write a step's values, shaped as `gather` returns them, into a latent [M, h, w] in place.

    Raises:
        ValueError: If the latent or the values have another shape.
    """
    _check_latent(latent, step)
    expected = step.shape(latent.shape[1], latent.shape[2])
    if values.shape != expected:
        raise ValueError(f"step {step.index} takes values of shape {expected}, got {values.shape}")
    part = latent[step.channels]
    if step.all_positions:
        part[...] = values
        return
    for (row, column), block in zip(step.positions, np.split(values, len(step.positions)), strict=True):
        part[:, row::2, column::2] = block


def _check_grid(h: int, w: int) -> None:
    if h < 2 or w < 2 or h % 2 or w % 2:
        raise ValueError(f"the latent's height and width must be even and at least 2, got {h}x{w}")


def _check_latent(latent: NDArray[Any], step: Step) -> None:
    if latent.ndim != 3:
        raise ValueError(f"expected a latent [channels, h, w], got shape {latent.shape}")
    if not step.all_positions:
        _check_grid(latent.shape[1], latent.shape[2])
    if latent.shape[0] < step.channels.stop:
        raise ValueError(
            f"step {step.index} codes channels up to {step.channels.stop}, the latent has {latent.shape[0]}"
        )
