"""The quality of a file: given, or found for a rate or a size by a search with few calls of the encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from ..bitstream.container import QUALITY_UNIT as STEPS
from ..bitstream.plan import Quality
from ..errors import UsageError
from ..pictures.images import Pixels
from .codec import Codec
from .pool import CodecPool

_FIRST_GUESS = 4 * STEPS
_ANY_SIZE = 1 << 62  # that every file fits in; whole numbers may be too large for a float
_USUAL_SLOPE = 0.35 / STEPS  # of log(size) over one step of quality, until two sizes are known
_EXTRAPOLATIONS = 3

Encode = Callable[[float], bytes]


@dataclass(frozen=True)
class RateGoal:
    """How large files may be: at most one of a quality, a rate and a size; by default the bundle's quality.

    Attributes:
        quality: within the bundle's range; rounded to 1/256.
        bpp: the largest quality with at most this many bits of file for each pixel of the image.
        max_bytes: the largest quality whose file has at most this many bytes.

    Raises:
        UsageError: several are given, or one that is not a positive, finite number.
    """

    quality: float | None = None
    bpp: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if len(given) > 1:
            names = " and ".join(f"{name}=..." for name in given)
            raise UsageError(f"{names} are mutually exclusive; give one of them")
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise UsageError(f"{name}=... must be a positive number, got {value}")

    def check(self, offered: Quality) -> None:
        """Raises UsageError if the quality is outside of those that a model offers."""
        if self.quality is not None and not offered.min <= self.quality <= offered.max:
            raise UsageError(
                f"quality=... must lie between {offered.min:g} and {offered.max:g}, got {self.quality:g}"
            )

    def encode(
        self,
        codec: Codec | CodecPool,
        pixels: Pixels,
        portable: bool = True,
        variant: str | None = None,
    ) -> tuple[float, bytes]:
        """Compresses an image to the goal.

        Args:
            codec: compresses; a pool does with its bundle, or with those of its ladder.
            pixels: uint8 [H,W,3].
            portable: as `Codec.compress` has it.
            variant: likewise.

        Returns:
            The quality, a multiple of 1/256 or one of the ladder's, and the file.

        Raises:
            UsageError: there is no such quality, or even the smallest gives a larger file.
            ImageError: as `Codec.compress`.
        """
        height, width = pixels.shape[:2]
        if isinstance(codec, CodecPool):
            if codec.qualities is not None:
                return self._encode_on_ladder(codec, codec.qualities, pixels, portable, variant)
            codec = codec.to_encode()
        encode = partial(codec.compress, pixels, portable=portable, variant=variant)
        offered = codec.plan.quality
        if self.bpp is not None:
            return largest_quality_within_bpp(encode, self.bpp, width, height, offered.min, offered.max)
        if self.max_bytes is not None:
            return largest_quality_within(encode, self.max_bytes, offered.min, offered.max)
        quality = offered.default if self.quality is None else self.quality
        return round(quality * STEPS) / STEPS, encode(quality)

    def _encode_on_ladder(
        self,
        codecs: CodecPool,
        qualities: Sequence[float],
        pixels: Pixels,
        portable: bool,
        variant: str | None,
    ) -> tuple[float, bytes]:
        def encode(quality: float) -> bytes:
            return codecs.to_encode(quality).compress(pixels, portable=portable, variant=variant)

        height, width = pixels.shape[:2]
        max_bytes = self.max_bytes if self.bpp is None else bytes_for_bpp(self.bpp, width, height)
        if max_bytes is not None:
            return largest_rung_within(encode, max_bytes, qualities)
        quality = qualities[(len(qualities) - 1) // 2] if self.quality is None else self.quality
        return quality, encode(quality)


def largest_quality_within(
    encode: Encode, max_bytes: int, lowest: float = 1.0, highest: float = 8.0, tolerance: float = 0.01
) -> tuple[float, bytes]:
    """Searches the largest quality whose file has at most `max_bytes` bytes.

    The file returned never exceeds `max_bytes`, whatever `encode` does. It is the best there is in one of
    three senses: its quality is `highest`; or it has at least (1 - `tolerance`) * `max_bytes` bytes; or the
    next quality, 1/256 higher, was tried and does not fit. The last is local: size rises with quality nearly
    but not exactly everywhere, so a still higher quality may fit by chance. With `tolerance` 0 the second
    sense asks for exactly `max_bytes`.

    Args:
        encode: quality -> the bytes of the whole file. Usually called 3 to 5 times, and never twice with one
            quality.
        max_bytes: the limit.
        lowest: the smallest quality.
        highest: the largest quality.
        tolerance: how far below `max_bytes` the search may end, as a part of it.

    Returns:
        The quality, a multiple of 1/256, and the file `encode` gave for it.

    Raises:
        UsageError: the file of `lowest` quality is larger than `max_bytes`; the message says its size.
    """
    search = _search(encode, max_bytes, lowest, highest, tolerance)
    if search.best is None:
        smallest = f"the smallest file, at quality {lowest:g}, has {search.size_above} bytes"
        raise UsageError(f"{smallest}; {max_bytes} bytes are too few")
    return search.below / STEPS, search.best


def largest_quality_within_bpp(
    encode: Encode,
    bpp: float,
    width: int,
    height: int,
    lowest: float = 1.0,
    highest: float = 8.0,
    tolerance: float = 0.01,
) -> tuple[float, bytes]:
    """Searches the largest quality with at most `bpp` bits for each of the image's width * height pixels.

    Bits are those of the whole file, header included; pixels are those of the image before padding. The rest
    is as in `largest_quality_within` with `max_bytes = bytes_for_bpp(bpp, width, height)`.

    Raises:
        UsageError: the file of `lowest` quality has more; the message says how many.
    """
    search = _search(encode, bytes_for_bpp(bpp, width, height), lowest, highest, tolerance)
    if search.best is None:
        rate = f"{8 * search.size_above / (width * height):.4g} bpp ({search.size_above} bytes)"
        raise UsageError(f"the smallest file, at quality {lowest:g}, has {rate}; {bpp:g} bpp is too low")
    return search.below / STEPS, search.best


def largest_rung_within(encode: Encode, max_bytes: int, qualities: Sequence[float]) -> tuple[float, bytes]:
    """Searches the largest of some qualities whose file has at most `max_bytes` bytes, by bisection.

    Args:
        encode: quality -> the bytes of the whole file.
        max_bytes: the limit.
        qualities: rising; so do the sizes, or the result is not the largest.

    Raises:
        UsageError: the file of the smallest quality is larger than `max_bytes`; the message says its size.
    """
    best = None
    low, high, smallest = 0, len(qualities), 0
    while low < high:
        middle = (low + high) // 2
        data = encode(qualities[middle])
        if len(data) <= max_bytes:
            best, low = (qualities[middle], data), middle + 1
        else:
            smallest, high = len(data), middle
    if best is None:
        raise UsageError(
            f"the smallest file, at quality {qualities[0]:g}, has {smallest} bytes; "
            f"{max_bytes} bytes are too few"
        )
    return best


def bytes_for_bpp(bpp: float, width: int, height: int) -> int:
    """The largest size with size * 8 / (width * height) <= bpp, `bpp` being exactly what its decimals say."""
    return math.floor(Fraction(repr(float(bpp))) * width * height / 8)


def _search(encode: Encode, max_bytes: int, lowest: float, highest: float, tolerance: float) -> _Search:
    search = _Search(max_bytes, math.ceil(lowest * STEPS), math.floor(highest * STEPS), tolerance)
    while not search.done():
        step = search.next_step()
        search.add(step, encode(step / STEPS))
    return search


class _Search:
    """A bracket in steps of quality: all up to `below` is settled as fitting, all from `above` as too large.

    Ends that were not tried yet lie one step outside of the range.
    """

    def __init__(self, max_bytes: int, lowest: int, highest: int, tolerance: float) -> None:
        self.max_bytes, self.lowest, self.highest = min(max_bytes, _ANY_SIZE), lowest, highest
        self.below, self.above = lowest - 1, highest + 1
        self.size_below = self.size_above = 0  # 0: that end was not tried
        self.best: bytes | None = None
        self.calls = 0
        self._halve = False
        self._enough = (1 - tolerance) * self.max_bytes
        self._aim = math.log(max(1.0, (1 - tolerance / 2) * self.max_bytes))  # the middle of what is accepted

    def done(self) -> bool:
        """Whether the bracket is one step, or its lower end close enough to the limit."""
        return self.above - self.below == 1 or (self.best is not None and self.size_below >= self._enough)

    def add(self, step: int, data: bytes) -> None:
        """Takes the file of `step`, which lies inside the bracket, as one of its ends."""
        width = self.above - self.below
        bracketed = self.size_below > 0 and self.size_above > 0
        if len(data) <= self.max_bytes:
            self.below, self.size_below, self.best = step, len(data), data
        else:
            self.above, self.size_above = step, len(data)
        self.calls += 1
        self._halve = bracketed and not self._halve and 2 * (self.above - self.below) > width

    def next_step(self) -> int:
        """The most promising step inside the bracket; in its middle if the last guess did not halve it."""
        if self._halve:
            guess = (self.below + self.above) / 2
        elif self.size_below and self.size_above:
            guess = self._interpolated()
        else:
            guess = self._extrapolated()
        return min(max(round(guess), self.below + 1), self.above - 1)

    def _interpolated(self) -> float:
        low, high = math.log(self.size_below), math.log(self.size_above)
        return self.below + (self._aim - low) / (high - low) * (self.above - self.below)

    def _extrapolated(self) -> float:
        """From the one end known, a little further than straight; the end of the range after some misses."""
        if not self.calls:
            return _FIRST_GUESS
        if self.calls >= _EXTRAPOLATIONS:
            return self.lowest if self.size_above else self.highest
        step, size = (self.above, self.size_above) if self.size_above else (self.below, self.size_below)
        return step + 1.1 * (self._aim - math.log(size)) / _USUAL_SLOPE
