"""The coding plan: what the coder must know of a codec, as data.

A bundle's manifest states it under `coding` (docs/bundle.md), and `polc_runtime.bundle.plan` parses it. One
loop interprets it, so that a hyperprior, a checkerboard and nine steps of channels and positions are one
vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .schedule import MIN_CHANNELS, Position, Step, nine_steps

MAX_STEPS = 64
"""Steps that a plan may have."""


@dataclass(frozen=True)
class Pad:
    """How images are padded before the networks see them.

    Attributes:
        multiple: both sides become multiples of this many pixels.
        min: and are at least this long, a multiple of `multiple`.
    """

    multiple: int
    min: int

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image of this size once it is padded, in pixels."""
        multiple, least = self.multiple, self.min

        def up(side: int) -> int:
            return max(least, -(-side // multiple) * multiple)

        return up(height), up(width)


VERSION_1_PAD = Pad(64, 192)
VERSION_1_LATENT_STRIDE = 16
VERSION_1_HYPER_STRIDE = 64
VERSION_1_QUALITIES = (1.0, 8.0)
"""The sizes and qualities of bitstream version 1 (docs/bitstream.md, "Sizes")."""


@dataclass(frozen=True)
class Quality:
    """The qualities that a model offers.

    Attributes:
        min: smallest.
        max: largest; equal to `min` for a model of one rate.
        default: taken where none is asked for.
    """

    min: float
    max: float
    default: float


@dataclass(frozen=True)
class Plane:
    """A latent's shape.

    Attributes:
        channels: of the latent.
        stride: pixels of the padded image between its neighbours.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class Hyper(Plane):
    """The hyper-latent.

    Attributes:
        graph: that takes `z_hat` and `quality`; what it gives is fed to the steps.
    """

    graph: str


@dataclass(frozen=True)
class Reach:
    """How far from an edge that cuts through an image the networks' outputs can depend on what was cut off.

    At the image's own borders nothing is cut off: there a part has the same borders as the whole.

    Attributes:
        y: of the latent that the analysis gives, in pixels of the image.
        z: of the hyper-latent, likewise.
        image: of the image that the synthesis gives, likewise.
        min: pixels beyond twice the reach that a part must have, so that windows of attention at one of its
            edges do not end at the other.
    """

    y: int
    z: int
    image: int
    min: int


@dataclass(frozen=True)
class CodingPlan:
    """How one codec's images become symbols.

    Attributes:
        pad: how images are padded.
        quality: what qualities there are.
        latent: y.
        hyper: z, coded first with the factorised prior; None for a codec without.
        steps: that code y one after another, each channel and position once.
        reach: of the networks, for tiles; None where they are global and large images run whole.
        macs: multiply-accumulates of graphs, per pixel of the padded image, by name, where known.
    """

    pad: Pad
    quality: Quality
    latent: Plane
    hyper: Hyper | None
    steps: tuple[Step, ...]
    reach: Reach | None = None
    macs: Mapping[str, float] = field(default_factory=dict)

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that the networks see of an image of this size, in pixels."""
        return self.pad.padded_size(height, width)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of y for an image of this size, in positions."""
        rows, columns = self.padded_size(height, width)
        return rows // self.latent.stride, columns // self.latent.stride

    def hyper_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of z for an image of this size, in positions; (0, 0) without a hyper-latent."""
        if self.hyper is None:
            return 0, 0
        rows, columns = self.padded_size(height, width)
        return rows // self.hyper.stride, columns // self.hyper.stride

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the padded image between neighbours in the tensors of the graphs, by name."""
        latent = self.latent.stride
        found = {"image": 1, "y": latent, "y_hat": latent, "params": latent}
        return found | ({"z": self.hyper.stride, "z_hat": self.hyper.stride} if self.hyper else {})

    @property
    def fits_version_1(self) -> bool:
        """Whether bitstream version 1 holds this plan's files: the nine steps, its sizes and qualities."""
        low, high = VERSION_1_QUALITIES
        return (
            self.pad == VERSION_1_PAD
            and self.latent.stride == VERSION_1_LATENT_STRIDE
            and self.hyper is not None
            and self.hyper.stride == VERSION_1_HYPER_STRIDE
            and low <= self.quality.min
            and self.quality.max <= high
            and self.latent.channels >= MIN_CHANNELS
            and _bits(self.steps) == _bits(nine_steps(self.latent.channels))
        )

    @property
    def exact_graphs(self) -> frozenset[str]:
        """Names of the graphs that encoder and decoder must agree on."""
        hyper = [self.hyper.graph] if self.hyper else []
        return frozenset([*hyper, *(step.graph for step in self.steps if step.graph)])

    @property
    def step_numbers(self) -> dict[str, int]:
        """The graphs of the coding steps, in their order: name -> number of the step."""
        return {step.graph: step.index for step in self.steps if step.graph}

    def layout(self) -> dict[str, Any]:
        """What the bits depend on, as JSON-able data: fingerprints of bitstream version 2 cover it."""
        hyper = None if self.hyper is None else vars(self.hyper)
        return {
            "pad": vars(self.pad),
            "latent": vars(self.latent),
            "hyper": hyper,
            "steps": [step.to_dict() for step in self.steps],
        }

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a bundle's manifest."""
        quality = {"range": [self.quality.min, self.quality.max], "default": self.quality.default}
        reach = None if self.reach is None else vars(self.reach)
        return {**self.layout(), "quality": quality, "reach": reach, "macs": dict(self.macs)}


def _bits(steps: tuple[Step, ...]) -> list[tuple[int, int, tuple[Position, ...]]]:
    """What the bits depend on of steps that have graphs."""
    return [(step.channels.start, step.channels.stop, step.positions) for step in steps if step.graph]
