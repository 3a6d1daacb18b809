"""Neighbourhood attention as small dense products over tiles of queries: any device, any size, autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .reference import window_starts

MAX_CHUNK_LOGITS = 1 << 22
"""Most attention logits held at once: bounds the memory on top of the inputs."""


@dataclass(frozen=True)
class AxisTiles:
    """How one axis is cut in tiles of T queries that share a window of P keys.

    Interior tiles look alike, so masks and bias offsets are kept for four patterns only: the first, the
    second, the last but one and the last tile. Needs T > kernel_size // 2.
    """

    query: Tensor  # int64 [tiles, T], clamped into the axis
    key: Tensor  # int64 [tiles, P], clamped into the axis
    pattern: Tensor  # int64 [tiles], which of the four patterns a tile follows
    valid: Tensor  # bool [4, T, P], whether a query attends to a key
    offset: Tensor  # int64 [4, T, P], index into the relative position bias
    home: Tensor  # int64 [length], the tile that holds each position
    slot: Tensor  # int64 [length], and where in the tile


def axis_tiles(length: int, kernel_size: int, device: torch.device) -> AxisTiles:
    """The tiling of an axis of the given length."""
    radius = kernel_size // 2
    tile = max(4, radius + 1)
    count = -(-length // tile)
    index = torch.arange(count, device=device)
    first = (index * tile).clamp(max=length - tile).clamp(min=0)
    query = (first[:, None] + torch.arange(tile, device=device)).clamp(max=length - 1)
    key = first[:, None] + torch.arange(tile + kernel_size - 1, device=device) - radius
    start = window_starts(length, kernel_size, device)[query][..., None]
    window = key[:, None, :]
    valid = (window >= start) & (window < start + kernel_size) & (window < length)
    offset = (window - query[..., None] + kernel_size - 1).clamp(0, 2 * kernel_size - 2)
    pattern = index.clamp(max=1) * (index - count + 4).clamp(min=1)
    examples = torch.tensor([0, 1, count - 2, count - 1], device=device).clamp(0, count - 1)
    position = torch.arange(length, device=device)
    home = position // tile
    return AxisTiles(
        query=query,
        key=key.clamp(0, length - 1),
        pattern=pattern,
        valid=valid[examples],
        offset=offset[examples],
        home=home,
        slot=position - first[home],
    )


def pattern_bias(rpb: Tensor | None, rows: AxisTiles, columns: AxisTiles, like: Tensor) -> Tensor:
    """Bias and mask of every pair of row and column patterns: [4, 4, heads, T*T, P*P]."""
    valid = rows.valid[:, None, :, None, :, None] & columns.valid[None, :, None, :, None, :]
    if rpb is None:
        bias = torch.zeros((1, *valid.shape), dtype=like.dtype, device=like.device)
    else:
        bias = rpb.to(like.dtype)[
            :, rows.offset[:, None, :, None, :, None], columns.offset[None, :, None, :, None, :]
        ]
    bias = bias.masked_fill(~valid, float("-inf"))
    return bias.permute(1, 2, 0, 3, 4, 5, 6).flatten(5, 6).flatten(3, 4)


def flat_index(rows: Tensor, columns: Tensor, width: int, heads: int) -> Tensor:
    """Where the vectors of tiles lie in [H*W*heads]: [row tiles, column tiles, heads, r*c].

    Args:
        rows: positions along the height, [row tiles, r].
        columns: positions along the width, [column tiles, c].
        width: W.
        heads: number of heads.
    """
    head = torch.arange(heads, device=rows.device)
    position = rows[:, None, None, :, None] * width + columns[None, :, None, None, :]
    return (position * heads + head[:, None, None]).flatten(3)


def na2d_tiled(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention over tiles of queries, a few rows of tiles at a time.

    One gather brings each tile's vectors together, heads first, so that nothing is transposed. Arguments and
    result as in `polc.na2d`.
    """
    batch, height, width, heads, dim = (int(size) for size in q.shape)
    rows = axis_tiles(height, kernel_size, q.device)
    columns = axis_tiles(width, kernel_size, q.device)
    bias = pattern_bias(rpb, rows, columns, q)[:, columns.pattern]
    flat = [t.reshape(batch, height * width * heads, dim) for t in (q * scale, k, v)]

    def gather(x: Tensor, row_positions: Tensor, column_positions: Tensor) -> Tensor:
        """[B, H*W*heads, dim] -> [B, row tiles, column tiles, heads, positions of a tile, dim]."""
        index = flat_index(row_positions, column_positions, width, heads)
        return x.index_select(1, index.flatten()).view(batch, *index.shape, dim)

    (row_tiles, tile), column_tiles = rows.query.shape, columns.query.shape[0]
    step = max(1, MAX_CHUNK_LOGITS // (batch * column_tiles * bias.shape[-1] * heads * tile * tile))
    chunks = []
    for begin in range(0, row_tiles, step):
        part = slice(begin, begin + step)
        keys, values = (gather(x, rows.key[part], columns.key) for x in flat[1:])
        logits = gather(flat[0], rows.query[part], columns.query) @ keys.transpose(-1, -2)
        chunks.append((logits + bias[rows.pattern[part]]).softmax(-1) @ values)
    tiles = torch.cat(chunks, 1).view(batch, -1, dim)
    row = rows.home * (column_tiles * heads * tile * tile) + rows.slot * tile
    column = columns.home * (heads * tile * tile) + columns.slot
    head = torch.arange(heads, device=q.device) * (tile * tile)
    place = (row[:, None, None] + column[:, None] + head).flatten()
    return tiles.index_select(1, place).view(q.shape)
