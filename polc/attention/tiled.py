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

    query: Tensor  # int64 [tiles, T]
    key: Tensor  # int64 [tiles, P], clamped into the axis
    pattern: Tensor  # int64 [tiles], which of the four patterns a tile follows
    valid: Tensor  # bool [4, T, P], whether a query attends to a key
    offset: Tensor  # int64 [4, T, P], index into the relative position bias
    untile: Tensor  # int64 [length], where each query stands after tiling


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
    pattern = torch.ones_like(index)
    pattern[-2:] = torch.tensor([2, 3], device=device)[-count:]
    pattern[0] = 0
    examples = torch.tensor([0, 1, count - 2, count - 1], device=device).clamp(0, count - 1)
    position = torch.arange(length, device=device)
    untile = position // tile * tile + position - first[position // tile]
    return AxisTiles(query, key.clamp(0, length - 1), pattern, valid[examples], offset[examples], untile)


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


def na2d_tiled(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention over tiles of queries, a few rows of tiles at a time.

    Arguments and result as in `polc.na2d`.
    """
    batch, height, width, heads, dim = q.shape
    rows = axis_tiles(int(height), kernel_size, q.device)
    columns = axis_tiles(int(width), kernel_size, q.device)
    bias = pattern_bias(rpb, rows, columns, q)[:, columns.pattern]
    count, tile = rows.query.shape

    def gather(x: Tensor, row_index: Tensor, column_index: Tensor) -> Tensor:
        """[B,H,W,heads,dim] -> [B, tile rows, tile columns, heads, rows*columns of a tile, dim]."""
        x = x[:, row_index][:, :, :, column_index]
        return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)

    per_row = batch * columns.query.shape[0] * bias.shape[-1] * heads * tile * tile
    step = max(1, MAX_CHUNK_LOGITS // per_row)
    chunks = []
    for begin in range(0, count, step):
        part = slice(begin, begin + step)
        queries = gather(q, rows.query[part], columns.query) * scale
        keys = gather(k, rows.key[part], columns.key)
        values = gather(v, rows.key[part], columns.key)
        logits = queries @ keys.transpose(-1, -2) + bias[rows.pattern[part]]
        out = (logits.softmax(-1) @ values).unflatten(4, (tile, tile))
        chunks.append(out.permute(0, 1, 4, 2, 5, 3, 6).flatten(1, 2).flatten(2, 3))
    return torch.cat(chunks, 1)[:, rows.untile][:, :, columns.untile]
