"""Reads the coding plan for the plain decoder: Sizes, Order of symbols, Version 2 of docs/bitstream.md."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from plain_container import Container

# Order of symbols
GROUPS = (0, 0, 0, 0, 1, 1, 2, 2, 3)
POSITIONS = ("00", "11", "01", "10", "01 10", "00 11", "00 11", "01 10", "all")


@dataclass(frozen=True)
class Step:
    """One of a plan's steps; `positions` are pairs of parities, or None for all places."""

    graph: str | None
    channels: tuple[int, int]
    positions: tuple[tuple[int, int], ...] | None


def group_bounds(channels: int) -> list[int]:
    bounds = [channels]
    for t in (1, 2, 3):
        bounds.append(min(math.ceil(channels * math.cos(math.pi * t / 8)), bounds[-1] - 1))
    return [*bounds, 0]


def nine_steps(channels: int) -> list[Step]:
    """Version 1's steps."""
    starts = [channels - bound for bound in group_bounds(channels)]
    places = [
        None if text == "all" else tuple((int(r), int(c)) for r, c in text.split()) for text in POSITIONS
    ]
    return [
        Step(f"context_{i}", (starts[group], starts[group + 1]), positions)
        for i, (group, positions) in enumerate(zip(GROUPS, places, strict=True))
    ]


def step_views(latent: np.ndarray, step: Step) -> list[np.ndarray]:
    """The parts of a latent [M, rows, columns] that a step writes, as views in the order of coding."""
    group = latent[slice(*step.channels)]
    return [group] if step.positions is None else [group[:, r::2, c::2] for r, c in step.positions]


def joined(views: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([view.ravel() for view in views])


# Version 2
class Plan:
    """A bundle's coding plan: the manifest's key `coding`, or what stands for it in bundles without one."""

    def __init__(self, coding: dict[str, Any]):
        self.pad: dict[str, int] = coding["pad"]
        self.quality: list[float] = coding["quality"]["range"]
        self.latent: dict[str, int] = coding["latent"]
        self.hyper: dict[str, Any] | None = coding["hyper"]
        self.steps = [
            Step(step["graph"], tuple(step["channels"]), self.parities(step["positions"]))
            for step in coding["steps"]
        ]

    @staticmethod
    def parities(positions: Any) -> tuple[tuple[int, int], ...] | None:
        if positions == "all":
            return None
        if not all(pair in ([0, 0], [0, 1], [1, 0], [1, 1]) for pair in positions):
            raise ValueError(f"positions {positions}")
        return tuple((r, c) for r, c in positions)

    @classmethod
    def of_version_1(cls, channels: int, hyper_channels: int) -> Plan:
        coding = {
            "pad": {"multiple": 64, "min": 192},
            "quality": {"range": [1, 8]},
            "latent": {"channels": channels, "stride": 16},
            "hyper": {"channels": hyper_channels, "stride": 64, "graph": "hyper_synthesis"},
            "steps": [],
        }
        plan = cls(coding)
        plan.steps = nine_steps(channels)
        return plan

    @cached_property
    def version(self) -> int:
        """The version of the plan's files (Which version)."""
        nine = [(step.channels, step.positions) for step in nine_steps(self.latent["channels"])]
        first = (
            self.pad == {"multiple": 64, "min": 192}
            and self.latent["stride"] == 16
            and self.hyper is not None
            and self.hyper["stride"] == 64
            and 1 <= self.quality[0] <= self.quality[1] <= 8
            and all(step.graph for step in self.steps)
            and [(step.channels, step.positions) for step in self.steps] == nine
        )
        return 1 if first else 2

    def shape(self, part: dict[str, Any], file: Container) -> tuple[int, int, int]:
        """Channels, rows and columns of the latent or the hyper-latent of a file's image (Sizes)."""
        multiple, least = self.pad["multiple"], self.pad["min"]
        height, width = (max(least, multiple * -(-side // multiple)) for side in (file.height, file.width))
        return part["channels"], height // part["stride"], width // part["stride"]
