"""Sizes of images and batches that engines are to take, as the command line says them; imports little."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polc_runtime.errors import UsageError

if TYPE_CHECKING:
    from polc_runtime.bitstream.plan import Pad
    from polc_runtime.bundle import SizeRule

_SIZE = re.compile(r"(\d{1,6})x(\d{1,6})")
_BATCH = re.compile(r"(\d{1,6})(?::(\d{1,6}):(\d{1,6}))?")


@dataclass(frozen=True)
class Size:
    """An image's height and width, padded as the codec pads."""

    height: int
    width: int

    @classmethod
    def parse(cls, text: str, option: str) -> Size:
        """Reads HxW.

        Raises:
            UsageError: it is not a size.
        """
        match = _SIZE.fullmatch(text)
        if match is None:
            raise UsageError(f"{option} {text}: expected HEIGHTxWIDTH in pixels, such as 512x768")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


@dataclass(frozen=True)
class Batch:
    """Images at once: the smallest number, the one to be fastest at, and the largest."""

    min: int = 1
    opt: int = 1
    max: int = 1

    @classmethod
    def parse(cls, text: str, option: str = "--batch") -> Batch:
        """Reads N or MIN:OPT:MAX.

        Raises:
            UsageError: it is neither, or does not ascend from 1 on.
        """
        match = _BATCH.fullmatch(text)
        if match is None:
            raise UsageError(f"{option} {text}: expected N, or MIN:OPT:MAX such as 1:4:8")
        first = int(match[1])
        batch = cls(first, int(match[2] or first), int(match[3] or first))
        if not 1 <= batch.min <= batch.opt <= batch.max:
            raise UsageError(f"{option} {text}: expected 1 <= MIN <= OPT <= MAX")
        return batch


@dataclass(frozen=True)
class Shapes:
    """Images that engines are to take.

    Attributes:
        min: smallest height, and smallest width.
        opt: what the engines are to be fastest at.
        max: largest height, and largest width.
        batch: images at once; the entropy path's graphs take one, whatever it says.

    Raises:
        UsageError: the sizes do not ascend.
    """

    min: Size = Size(192, 192)
    opt: Size = Size(512, 768)
    max: Size = Size(1920, 1920)
    batch: Batch = Batch()

    def __post_init__(self) -> None:
        for side in ("height", "width"):
            low, middle, high = (getattr(size, side) for size in (self.min, self.opt, self.max))
            if not low <= middle <= high:
                raise UsageError(
                    f"the shapes do not ascend: a {side} of {low} in --min-shape, {middle} in --opt-shape, "
                    f"{high} in --max-shape"
                )

    def check(self, pad: Pad) -> None:
        """Raises UsageError unless images are padded to these sizes."""
        for name, size in (("min", self.min), ("opt", self.opt), ("max", self.max)):
            if pad.padded_size(size.height, size.width) != (size.height, size.width):
                raise UsageError(
                    f"--{name}-shape {size}: both sides must be multiples of {pad.multiple} from {pad.min} "
                    "on, as the bundle's images are padded to"
                )

    def fitted(self, rule: SizeRule, stride: int) -> Shapes:
        """The nearest shapes that a task's rule admits; `stride` is of the latent, in pixels."""
        if rule.fixed is not None:
            only = Size(*(stride * side for side in rule.fixed))
            return Shapes(only, only, only, self.batch)
        step, minimum = stride * rule.multiple, stride * rule.minimum
        start = -(-minimum // step) * step

        def up(size: Size) -> Size:
            return Size(*(max(start, -(-side // step) * step) for side in (size.height, size.width)))

        def down(size: Size, floor: Size) -> Size:
            sides = zip((size.height, size.width), (floor.height, floor.width), strict=True)
            return Size(*(max(low, side // step * step) for side, low in sides))

        smallest = up(self.min)
        largest = down(self.max, smallest)
        usual = up(self.opt)
        usual = Size(min(usual.height, largest.height), min(usual.width, largest.width))
        return Shapes(smallest, usual, largest, self.batch)
