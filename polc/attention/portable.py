"""Neighbourhood attention in TorchScript: plain operators and a loop, traced at one size for all."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE = 4, 8
"""Rows and columns of a tile of queries; a row of tiles is worked on at once."""


class Columns(NamedTuple):
    """How the columns of a map are cut in tiles of T queries, each with a window of P keys.

    The last tile slides back to end with the axis, and windows slide inwards at its ends, so that both lie
    inside. Where a tile begins in its window then tells which keys its queries see: tiles with the same
    `shift` look alike.

    Attributes:
        queries: int64 [tiles*T], the column of each query.
        keys: int64 [tiles*P], the column of each key.
        shifts: int64 [S], the different shifts there are.
        pattern: int64 [tiles], which of them a tile has.
        home: int64 [W], where in `queries` each column stands.
        tile: T.
        window: P.
    """

    queries: Tensor
    keys: Tensor
    shifts: Tensor
    pattern: Tensor
    home: Tensor
    tile: int
    window: int


def _cut(like: Tensor, length: int, kernel_size: int, tile: int) -> Columns:
    tile = min(tile, length)
    window = min(tile + kernel_size - 1, length)
    count = (length + tile - 1) // tile
    first = (torch.arange(count, device=like.device) * tile).clamp(max=length - tile)
    begin = (first - kernel_size // 2).clamp(0, length - window)
    shifts, pattern = torch.unique(first - begin, return_inverse=True)
    queries = (first[:, None] + torch.arange(tile, device=like.device)).flatten()
    keys = (begin[:, None] + torch.arange(window, device=like.device)).flatten()
    column = torch.arange(length, device=like.device)
    home = column // tile * tile + column - first[column // tile]
    return Columns(queries, keys, shifts, pattern, home, tile, window)


def _offsets(shifts: Tensor, kernel_size: int, tile: int, window: int) -> Tensor:
    """Key minus query plus k - 1, or -1 where a query does not attend: int64 [S,T,P]."""
    query = shifts[:, None, None] + torch.arange(tile, device=shifts.device)[:, None]
    key = torch.arange(window, device=shifts.device)
    start = (query - kernel_size // 2).clamp(0, max(window - kernel_size, 0))  # NATTEN's rule
    attends = (key >= start) & (key < start + kernel_size)
    return torch.where(attends, key - query + kernel_size - 1, -1)


def _bias(table: Tensor, rows: Tensor, columns: Tensor, pattern: Tensor, side: int) -> Tensor:
    """Biases of a row of tiles, [heads,tiles,Q,K], minus infinity where a query does not attend.

    Queries and keys of a tile are counted column by column. `table` is [heads,side*side+1], its last column
    minus infinity; `rows` [1,T,P] and `columns` [S,T',P'] are of `_offsets`.
    """
    row, column = rows[:, None, :, None, :], columns[:, :, None, :, None]
    index = torch.where((row >= 0) & (column >= 0), row * side + column, side * side)
    shape = [table.shape[0], columns.shape[0], -1, columns.shape[2] * rows.shape[2]]
    return table.index_select(1, index.flatten()).view(shape).index_select(1, pattern)


def _tiles(x: Tensor, columns: Tensor, each: int) -> Tensor:
    """Rows of a map, [B,R,W,heads,dim], in tiles or windows of `each` columns: [B,heads,tiles,each*R,dim]."""
    by_head = x.permute(0, 3, 2, 1, 4).flatten(3).index_select(2, columns)
    return by_head.view(x.shape[0], x.shape[3], -1, each * x.shape[1], x.shape[4])


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    scale: float,
    tiles: tuple[int, int],
) -> Tensor:
    """The attention; compiled as it stands, with the functions above, by `torch.jit.script`."""
    height, heads, side = q.shape[1], q.shape[3], 2 * kernel_size - 1
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    table = torch.zeros([heads, side * side], dtype=dtype, device=q.device)
    if rpb is not None:
        table = rpb.flatten(1).to(dtype)
    table = torch.nn.functional.pad(table, [0, 1], value=float("-inf"))
    cut = _cut(q, q.shape[2], kernel_size, tiles[1])
    columns = _offsets(cut.shifts, kernel_size, cut.tile, cut.window)
    tile = min(tiles[0], height)
    window = min(tile + kernel_size - 1, height)
    out, bias, biased = torch.empty_like(q, memory_format=torch.contiguous_format), table, -1
    for index in range((height + tile - 1) // tile):
        top = min(index * tile, height - tile)
        begin = min(max(top - kernel_size // 2, 0), height - window)
        if top - begin != biased:
            biased = top - begin
            rows = _offsets(torch.full([1], biased, device=q.device), kernel_size, tile, window)
            bias = _bias(table, rows, columns, cut.pattern, side)
        queries = _tiles(q[:, top : top + tile] * scale, cut.queries, cut.tile)
        keys = _tiles(k[:, begin : begin + window], cut.keys, cut.window)
        values = _tiles(v[:, begin : begin + window], cut.keys, cut.window)
        weights = (torch.matmul(queries, keys.transpose(3, 4)).to(dtype) + bias).softmax(-1)
        found = torch.matmul(weights.to(v.dtype), values).view(q.shape[0], heads, -1, tile * q.shape[4])
        found = found.index_select(2, cut.home).unflatten(3, [tile, q.shape[4]])
        out[:, top : top + tile] = found.permute(0, 3, 2, 1, 4)
    return out


@cache
def _compiled() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is deprecated, but nothing else keeps a loop
        return torch.jit.script(_attend)


def na2d_portable(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention for `torch.jit.trace`, which keeps its loop and every size open.

    Arguments and result as in `polc.na2d`. Holds the logits of one row of tiles at a time.
    """
    return _compiled()(q, k, v, rpb, kernel_size, float(scale), TILE)
