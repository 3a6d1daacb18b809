"""Tiles: how a large image is cut so that the networks give on the parts what they give on the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bitstream.geometry import HYPER_STRIDE, LATENT_STRIDE, PAD_LEAST, PAD_MULTIPLE
from ..bundle.fields import Fields

TILE_PIXELS = 1536 * 1536
"""Pixels that the networks run on at once; a larger image is cut in tiles.

More would be faster, and take 1.8 GB for a million pixels more with the full-size model.
"""

_MAX_DEPTH = 1 << 10
_CONVOLUTIONS = (5, 3, 3, 3)  # kernels of g_a; g_s has them the other way round
_HYPER_CONVOLUTIONS = (3, 3)


@dataclass(frozen=True)
class Reach:
    """How far from an edge that cuts through an image the networks' outputs can depend on what was cut off.

    At the image's own borders nothing is cut off: there a part has the same borders as the whole.

    Attributes:
        y: of the latent that the analysis gives, in pixels of the image.
        z: of the hyper-latent, likewise.
        image: of the image that the synthesis gives, likewise.
        least: pixels beyond the reach that a part must have, so that attention windows at one of its edges do
            not end at the other.
    """

    y: int
    z: int
    image: int
    least: int = PAD_LEAST

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Reach:
        """The reach of a model of these dimensions (a bundle's manifest has them).

        Raises:
            BundleError: a dimension is missing or not usable.
        """
        fields = Fields(model, "manifest.json: model")
        depths = fields.sizes("depths", 4, _MAX_DEPTH, least=0)
        hyper_depths = fields.sizes("hyper_depths", 2, _MAX_DEPTH, least=0)
        kernel, hyper_kernel = fields.size("kernel_size"), fields.size("hyper_kernel_size")
        y = _downward(0, _CONVOLUTIONS, depths, kernel)
        return cls(
            y=LATENT_STRIDE * y,
            z=HYPER_STRIDE * _downward(y, _HYPER_CONVOLUTIONS, hyper_depths, hyper_kernel),
            image=_upward(0, _CONVOLUTIONS[::-1], depths[::-1], kernel),
            least=max(PAD_LEAST, LATENT_STRIDE * kernel, HYPER_STRIDE * hyper_kernel),
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


@dataclass(frozen=True)
class Span:
    """Part of an axis, in pixels, all multiples of 64.

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


def tiles(height: int, width: int, reach: int, least: int, most_pixels: int) -> list[Tile]:
    """Cuts an image into tiles of one size that overlap by twice the reach, for as little work as possible.

    Args:
        height: of the padded image, a multiple of 64.
        width: likewise.
        reach: pixels at a cut edge of a tile that are not kept; rounded up to a multiple of 64.
        least: a tile is at least so much longer than twice the reach, or as long as the image.
        most_pixels: of a tile, unless none can be as small; then the smallest that can.

    Returns:
        The tiles row by row; what they keep covers each pixel once. A single one where the image is no larger
        than `most_pixels`.
    """
    reach = _up(reach)

    def cost(size: tuple[int, int]) -> tuple[int, int]:
        area = size[0] * size[1]
        return max(area, most_pixels), area * _count(height, size[0], reach) * _count(width, size[1], reach)

    rows, columns = min(product(_sizes(height, reach, least), _sizes(width, reach, least)), key=cost)
    return [
        Tile(row, column) for row in _spans(height, rows, reach) for column in _spans(width, columns, reach)
    ]


def _sizes(length: int, reach: int, least: int) -> list[int]:
    """Lengths of the spans that 1, 2, 3, .. of them cut an axis into, each as short as is right."""
    least = _up(2 * reach + least)
    shares = (-(-(length + 2 * reach * (count - 1)) // count) for count in range(2, length // PAD_MULTIPLE))
    return [length, *(size for share in shares if (size := max(_up(share), least)) < length)]


def _count(length: int, size: int, reach: int) -> int:
    """How many spans of that size an axis needs."""
    return 1 if size == length else 1 + -(-(length - size) // (size - 2 * reach))


def _spans(length: int, size: int, reach: int) -> list[Span]:
    """Spans of one size, the last slid back to end with the axis."""
    count = _count(length, size, reach)
    starts = [*(i * (size - 2 * reach) for i in range(count - 1)), length - size]
    edges = [0, *(start + reach for start in starts[1:]), length]
    return [Span(s, s + size, a, b) for s, a, b in zip(starts, edges[:-1], edges[1:], strict=True)]


def _up(pixels: int) -> int:
    """The next multiple of 64."""
    return -(-pixels // PAD_MULTIPLE) * PAD_MULTIPLE
