"""How maps are cut in tiles of queries that share a window of keys, and put together again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS_IN_TILE, COLUMNS_IN_TILE = 4, 8
"""Queries of a tile by axis; more for large kernels. Larger ones waste keys, smaller ones copy more."""

WHOLE_AXIS = 8
"""Axes up to this length are one tile."""


@dataclass(frozen=True)
class Axis:
    """How one axis is cut in `count` tiles of `tile` queries, each with a window of `window` keys.

    Tile i holds the queries from i * tile - front on, its window begins `left` before them; what lies beyond
    the axis is padding. Interior tiles look alike, so only the first, second, last but one and last tile are
    described, and `pattern[i]` is the one of them that tile i is like.
    """

    length: int
    kernel_size: int
    tile: int
    count: int
    front: int
    left: int
    window: int
    pattern: tuple[int, ...]

    @property
    def back(self) -> int:
        """Padding behind the last query."""
        return self.count * self.tile - self.length - self.front

    @property
    def inside(self) -> slice:
        """Where the axis lies in the padded queries."""
        return slice(self.front, self.front + self.length)

    @property
    def span(self) -> int:
        """Length of the padded keys."""
        return (self.count - 1) * self.tile + self.window

    @property
    def inside_keys(self) -> slice:
        """Where the axis lies in the padded keys."""
        return slice(self.front + self.left, self.front + self.left + self.length)

    @property
    def blocks(self) -> int:
        """How many tiles long a window is, rounded up."""
        return -(-self.window // self.tile)

    def offset(self) -> np.ndarray:
        """Key minus query plus k - 1, or -1 where a query does not attend: int64 [patterns, tile, window]."""
        k, count = self.kernel_size, self.count
        numbers = sorted({i for i in (0, 1, count - 2, count - 1) if 0 <= i < count})
        first = np.array(numbers)[:, None, None] * self.tile - self.front
        query = (first + np.arange(self.tile)[:, None]).clip(0, self.length - 1)
        key = first - self.left + np.arange(self.window)
        start = (query - k // 2).clip(0, max(self.length - k, 0))  # NATTEN's rule
        valid = (key >= start) & (key < start + k) & (key < self.length)
        return np.where(valid, key - query + k - 1, -1)


def cut_axis(length: int, kernel_size: int, tile: int) -> Axis:
    """Cuts an axis in tiles of `tile` queries, at least kernel_size // 2 + 1, or one that sees all keys."""
    radius = kernel_size // 2
    tile = max(tile, radius + 1)
    if length <= max(kernel_size, tile, WHOLE_AXIS):
        return Axis(length, kernel_size, length, 1, 0, 0, length, (0,))
    count = -(-length // tile)
    padding = count * tile - length
    front = min(padding, tile - radius - 1)  # radius + 1 queries of the first tile are left: no wider window
    left = max(radius, kernel_size - tile + padding - front)  # the last queries attend to the last k keys
    pattern = tuple(i if i < 2 else max(i - count + min(count, 4), 1) for i in range(count))
    return Axis(length, kernel_size, tile, count, front, left, left + tile + radius, pattern)


@lru_cache(maxsize=32)
def bias_index(rows: Axis, columns: Axis) -> np.ndarray:
    """Where in a flat [(2k-1)^2 + 1] the bias of a query and key stands: int64 [patterns, patterns, Q, K].

    The last element is for pairs that do not attend.
    """
    side = 2 * rows.kernel_size - 1
    row = rows.offset()[:, None, :, None, :, None]
    column = columns.offset()[None, :, None, :, None, :]
    index = np.where((row >= 0) & (column >= 0), row * side + column, side * side)
    patterns, tiles, windows = index.shape[:2], index.shape[2:4], index.shape[4:]
    return index.reshape(*patterns, math.prod(tiles), math.prod(windows))


@dataclass(frozen=True)
class Chunk:
    """A block of tiles.

    Attributes:
        part: which heads, rows of tiles and samples.
        shape: how many heads, rows of tiles, samples and columns of tiles.
        place: where in the list of all tiles.
        size: how many tiles.
    """

    part: tuple[slice, slice, slice]
    shape: tuple[int, int, int, int]
    place: slice
    size: int


def pieces(whole: int, step: int) -> Iterator[slice]:
    """Cuts range(whole) in pieces of `step`."""
    for begin in range(0, whole, step):
        yield slice(begin, min(begin + step, whole))


@dataclass(frozen=True)
class Tiling:
    """The tiles of a whole map [B,H,W,heads,dim].

    They lie in the order heads, rows of tiles, samples, columns of tiles: a chunk of them is contiguous and
    has few biases. Below, Q and K are the queries and keys of a tile, R and C the rows and columns of tiles.
    """

    rows: Axis
    columns: Axis
    batch: int
    heads: int
    dim: int

    @classmethod
    def of(cls, q: Tensor, kernel_size: int) -> Tiling:
        """The tiling for queries [B,H,W,heads,dim]."""
        batch, height, width, heads, dim = (int(size) for size in q.shape)
        rows = cut_axis(height, kernel_size, ROWS_IN_TILE)
        return cls(rows, cut_axis(width, kernel_size, COLUMNS_IN_TILE), batch, heads, dim)

    @property
    def queries(self) -> int:
        """Q."""
        return self.rows.tile * self.columns.tile

    @property
    def keys(self) -> int:
        """K."""
        return self.rows.window * self.columns.window

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return self.heads * self.rows.count * self.batch * self.columns.count

    def chunks(self, limit: int) -> list[Chunk]:
        """Cuts the tiles in chunks of at most `limit` logits, but no smaller than one row of tiles."""
        unit = self.columns.count * self.queries * self.keys
        steps = []
        for size in (self.batch, self.rows.count, self.heads):
            steps.append(max(1, min(size, limit // unit)))
            unit *= steps[-1]
        done, chunks = 0, []
        for heads in pieces(self.heads, steps[2]):
            for rows in pieces(self.rows.count, steps[1]):
                for batch in pieces(self.batch, steps[0]):
                    part = heads, rows, batch
                    lengths = tuple(s.stop - s.start for s in part)
                    size = math.prod(lengths) * self.columns.count
                    chunks.append(Chunk(part, (*lengths, self.columns.count), slice(done, done + size), size))
                    done += size
        return chunks

    def tile(self, x: Tensor) -> Tensor:
        """Brings queries [B,H,W,heads,dim] into tiles [tiles,Q,dim]."""
        r, c = self.rows, self.columns
        if r.front or r.back or c.front or c.back:
            x = F.pad(x, (0, 0, 0, 0, c.front, c.back, r.front, r.back))
        x = x.reshape(self.batch, r.count, r.tile, c.count, c.tile, self.heads, -1)
        return x.permute(5, 1, 0, 3, 2, 4, 6).reshape(self.tiles, self.queries, -1)

    def untile(self, x: Tensor) -> Tensor:
        """Inverse of `tile`."""
        r, c = self.rows, self.columns
        x = x.view(self.heads, r.count, self.batch, c.count, r.tile, c.tile, -1).permute(2, 1, 4, 3, 5, 0, 6)
        x = x.reshape(self.batch, r.count * r.tile, c.count * c.tile, self.heads, -1)
        return x[:, r.inside, c.inside].contiguous()

    def windows(self, k: Tensor, v: Tensor) -> Tensor:
        """View of keys and values by window: [2,heads,R,B,C,window rows,window columns,dim]."""
        r, c = self.rows, self.columns
        padded = k.new_zeros((2, self.heads, self.batch, r.span, c.span, self.dim))
        inside = padded[:, :, :, r.inside_keys, c.inside_keys]
        inside[0] = k.permute(3, 0, 1, 2, 4)
        inside[1] = v.permute(3, 0, 1, 2, 4)
        view = padded.unfold(3, r.window, r.tile).unfold(4, c.window, c.tile)
        return view.permute(0, 1, 3, 2, 4, 6, 7, 5)


class OverlapAdd:
    """Transpose of `Tiling.windows`: adds up the gradients of windows that overlap.

    A window is cut in blocks no larger than a tile; blocks of one kind never overlap, so each kind is one sum
    of slices.
    """

    def __init__(self, tiling: Tiling, dtype: torch.dtype, device: torch.device) -> None:
        self.tiling, (r, c) = tiling, (tiling.rows, tiling.columns)
        extents = (r.count + r.blocks - 1, r.tile, c.count + c.blocks - 1, c.tile)
        shape = (2, tiling.heads, tiling.batch, *extents, tiling.dim)
        self.total = torch.zeros(shape, dtype=dtype, device=device)
        self.blocks = []
        for i in range(r.blocks):
            for j in range(c.blocks):
                height, width = min(r.tile, r.window - i * r.tile), min(c.tile, c.window - j * c.tile)
                target = self.total[:, :, :, i : i + r.count, :height, j : j + c.count, :width]
                rows = slice(i * r.tile, i * r.tile + height)
                columns = slice(j * c.tile, j * c.tile + width)
                self.blocks.append((target.permute(0, 1, 3, 2, 5, 4, 6, 7), rows, columns))

    def add(self, chunk: Chunk, grad: Tensor) -> None:
        """Adds the gradients [2,tiles,K,dim] of a chunk's keys and values."""
        t = self.tiling
        grad = grad.view(2, *chunk.shape, t.rows.window, t.columns.window, t.dim)
        heads, row_tiles, batch = chunk.part
        for target, rows, columns in self.blocks:
            target[:, heads, row_tiles, batch].add_(grad[:, :, :, :, :, rows, columns])

    def result(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gradients of keys and values, [B,H,W,heads,dim]."""
        total = self.total.flatten(5, 6).flatten(3, 4).permute(0, 2, 3, 4, 1, 5)
        k_grad, v_grad = total[:, :, self.tiling.rows.inside_keys, self.tiling.columns.inside_keys].unbind()
        form = torch.contiguous_format
        return k_grad.to(dtype, copy=True, memory_format=form), v_grad.to(
            dtype, copy=True, memory_format=form
        )
