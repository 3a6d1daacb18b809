"""The quality for a number of bytes: a search that calls the encoder, which takes seconds, few times."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from ..errors import UsageError

STEPS = 256
"""Qualities are multiples of 1/256."""

MAX_CALLS = 26
"""Calls of the encoder that no search exceeds; 3 to 5 are usual."""

_FIRST_GUESS = 4 * STEPS
_ANY_SIZE = 1 << 62  # that every file fits in; whole numbers may be too large for a float
_USUAL_SLOPE = 0.35 / STEPS  # of log(size) over one step of quality, until two sizes are known
_EXTRAPOLATIONS = 3

Encode = Callable[[float], bytes]


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
        encode: quality -> the bytes of the whole file. Called at most `MAX_CALLS` times, never twice with one
            quality.
        max_bytes: the limit.
        lowest: the least quality.
        highest: the largest quality.
        tolerance: how far below `max_bytes` the search may end, as a part of it.

    Returns:
        The quality, a multiple of 1/256, and the file `encode` gave for it.

    Raises:
        UsageError: the file of `lowest` quality is larger than `max_bytes`; the message says its size.
    """
    search = _search(encode, max_bytes, lowest, highest, tolerance)
    if search.best is None:
        least = f"the least size there is, at quality {lowest:g}, is {search.size_above} bytes"
        raise UsageError(f"{max_bytes} bytes cannot be reached: {least}")
    return search.below / STEPS, search.best


def closest_to_bpp(
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
        size = search.size_above
        rate = f"{8 * size / (width * height):.4g} bpp ({size} bytes)"
        raise UsageError(
            f"{bpp:g} bpp cannot be reached: the least rate there is, at quality {lowest:g}, is {rate}"
        )
    return search.below / STEPS, search.best


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
