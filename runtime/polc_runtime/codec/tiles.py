"""Tiles: how a large image is cut so that the networks give on the parts what they give on the whole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

TILE_PIXELS = 1536 * 1536
"""Pixels that the networks run on at once; a larger image is cut in tiles.

More would be faster, and take 1.8 GB for a million pixels more with the full-size model.
"""


@dataclass(frozen=True)
class Span:
    """Part of an axis, in pixels, all multiples of the plan's padding.

    Attributes:
        start: first pixel that the networks see.
        stop: behind the last.
        keep_start: first pixel that is kept of what they give.
        keep_stop: behind the last.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    def seen(self, stride: int = 1) -> slice:
        """What the networks see, on a grid of that stride."""
        return slice(self.start // stride, self.stop // stride)

    def kept(self, stride: int = 1) -> slice:
        """Where the kept part lies on the whole grid."""
        return slice(self.keep_start // stride, self.keep_stop // stride)

    def inner(self, stride: int = 1) -> slice:
        """Where it lies in what the networks give for this span."""
        return slice((self.keep_start - self.start) // stride, (self.keep_stop - self.start) // stride)


@dataclass(frozen=True)
class Tile:
    """Part of an image."""

    rows: Span
    columns: Span

    def seen(self, whole: NDArray[Any], stride: int) -> NDArray[Any]:
        """What the networks see of an array [..., H/stride, W/stride]."""
        return whole[..., self.rows.seen(stride), self.columns.seen(stride)]

    def inner(self, part: NDArray[Any], stride: int) -> NDArray[Any]:
        """What is kept of an array that the networks gave for this tile."""
        return part[..., self.rows.inner(stride), self.columns.inner(stride)]

    def paste(self, part: NDArray[np.float32], whole: NDArray[np.float32], stride: int) -> None:
        """Puts what is kept of `part` into its place in an array [..., H/stride, W/stride]."""
        whole[..., self.rows.kept(stride), self.columns.kept(stride)] = self.inner(part, stride)


def tiles(height: int, width: int, reach: int, least: int, most_pixels: int, multiple: int) -> list[Tile]:
    """Cuts an image into tiles of one size that overlap by twice the reach, for as little work as possible.

    Args:
        height: of the padded image in pixels, a multiple of `multiple`.
        width: likewise.
        reach: pixels at a cut edge of a tile that are not kept; rounded up to a multiple.
        least: a tile is at least so much longer than twice the reach, or as long as the image.
        most_pixels: of a tile, unless none can be as small; then the smallest that can.
        multiple: tiles begin and end at multiples of so many pixels.

    Returns:
        The tiles row by row; what they keep covers each pixel once. A single one where the image is no larger
        than `most_pixels`.
    """
    reach = _up(reach, multiple)

    def cost(size: tuple[int, int]) -> tuple[int, int]:
        area = size[0] * size[1]
        return max(area, most_pixels), area * _count(height, size[0], reach) * _count(width, size[1], reach)

    rows, columns = min(
        product(_sizes(height, reach, least, multiple), _sizes(width, reach, least, multiple)), key=cost
    )
    return [
        Tile(row, column) for row in _spans(height, rows, reach) for column in _spans(width, columns, reach)
    ]


def _sizes(length: int, reach: int, least: int, multiple: int) -> list[int]:
    """Lengths of the spans that 1, 2, 3, .. of them cut an axis into, each as short as is right."""
    least = _up(2 * reach + least, multiple)
    shares = (-(-(length + 2 * reach * (count - 1)) // count) for count in range(2, length // multiple))
    return [length, *(size for share in shares if (size := max(_up(share, multiple), least)) < length)]


def _count(length: int, size: int, reach: int) -> int:
    """How many spans of that size an axis needs."""
    return 1 if size == length else 1 + -(-(length - size) // (size - 2 * reach))


def _spans(length: int, size: int, reach: int) -> list[Span]:
    """Spans of one size, the last slid back to end with the axis."""
    count = _count(length, size, reach)
    starts = [*(i * (size - 2 * reach) for i in range(count - 1)), length - size]
    edges = [0, *(start + reach for start in starts[1:]), length]
    return [Span(s, s + size, a, b) for s, a, b in zip(starts, edges[:-1], edges[1:], strict=True)]


def _up(pixels: int, multiple: int) -> int:
    """The next multiple."""
    return -(-pixels // multiple) * multiple
