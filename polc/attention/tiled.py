"""Neighbourhood attention as small dense products over tiles of queries: any device, any size, autograd."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .tiling import Chunk, OverlapAdd, Tiling, bias_index

CPU_CHUNK_LOGITS = 1 << 18
"""Attention logits held at once on a CPU: they stay in its cache, which halves the time of the products."""

CHUNK_LOGITS = 1 << 24
"""The same on every other device: bounds the memory on top of the inputs."""

SAVED_LOGITS = 1 << 26
"""Most attention weights that the forward pass keeps; beyond it the backward pass computes them again."""


def accumulator(x: Tensor) -> torch.dtype:
    """Type of biases, softmax and sums over tensors like `x`: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


class Bias:
    """The relative position bias of every kind of tile, under the mask of the neighbourhoods.

    Args:
        tiling: the tiles.
        rpb: relative position bias [heads,2k-1,2k-1], or None for none.
        like: gives the device and, by `accumulator`, the type.
    """

    def __init__(self, tiling: Tiling, rpb: Tensor | None, like: Tensor) -> None:
        self.patterns, self.side = tiling.rows.pattern, 2 * tiling.rows.kernel_size - 1
        index = torch.from_numpy(bias_index(tiling.rows, tiling.columns)).to(like.device)
        heads = torch.arange(tiling.heads, device=like.device).view(-1, 1, 1, 1, 1)
        self.index = index + heads * (self.side**2 + 1)
        self.columns = torch.tensor(tiling.columns.pattern, device=like.device)
        self.zeros = torch.zeros((tiling.heads, self.side**2), dtype=accumulator(like), device=like.device)
        self.rpb = rpb

    @cached_property
    def values(self) -> Tensor:
        """[heads,row patterns,C,Q,K], minus infinity where a query does not attend."""
        table = self.zeros if self.rpb is None else self.rpb.flatten(1).to(self.zeros.dtype)
        table = F.pad(table, (0, 1), value=float("-inf")).flatten()
        return (
            table.index_select(0, self.index.flatten()).view(self.index.shape).index_select(2, self.columns)
        )

    def add(self, logits: Tensor, chunk: Chunk) -> None:
        """Adds `values` to logits [tiles,Q,K] of a chunk, in place."""
        heads, rows, _ = chunk.part
        by_row = logits.view(*chunk.shape, *logits.shape[1:])
        for i, pattern in enumerate(self.patterns[rows]):
            by_row[:, i].add_(self.values[heads, pattern].unsqueeze(1))

    def no_gradient(self) -> Tensor:
        """Zeros [heads,row patterns,C,Q,K] to add gradients to."""
        heads, patterns, _, queries, keys = self.index.shape
        return self.zeros.new_zeros((heads, patterns, len(self.columns), queries, keys))

    def add_gradient(self, total: Tensor, grad: Tensor, chunk: Chunk) -> None:
        """Transpose of `add`: adds the logits' gradient [tiles,Q,K] of a chunk to `total`."""
        heads, rows, _ = chunk.part
        by_row = grad.view(*chunk.shape, *grad.shape[1:])
        by_row = by_row[:, :, 0] if chunk.shape[2] == 1 else by_row.sum(2)
        for i, pattern in enumerate(self.patterns[rows]):
            total[heads, pattern].add_(by_row[:, i])

    def gradient(self, total: Tensor) -> Tensor:
        """Transpose of `values`: the gradient of rpb."""
        total = total.new_zeros(self.index.shape).index_add_(2, self.columns, total)
        table = total.new_zeros(len(self.zeros) * (self.side**2 + 1))
        table.index_add_(0, self.index.flatten(), total.flatten())
        return table.view(len(self.zeros), -1)[:, :-1].reshape(-1, self.side, self.side)


class Scratch:
    """Memory that every chunk uses again; fresh memory each time would cost more than the arithmetic.

    Args:
        tiling: the tiles.
        chunks: chunks of them.
        k: keys [B,H,W,heads,dim].
        v: values, same shape.
    """

    def __init__(self, tiling: Tiling, chunks: list[Chunk], k: Tensor, v: Tensor) -> None:
        size = max(chunk.size for chunk in chunks)
        self.tiling, self.windows = tiling, tiling.windows(k, v)
        self.gathered = k.new_empty((2, size, tiling.keys, tiling.dim))
        self.logits = k.new_empty((size, tiling.queries, tiling.keys))

    def keys_and_values(self, chunk: Chunk) -> Tensor:
        """[2,tiles,K,dim] of a chunk."""
        heads, rows, batch = chunk.part
        t, both = self.tiling, self.gathered[:, : chunk.size]
        both.view(2, *chunk.shape, t.rows.window, t.columns.window, t.dim).copy_(
            self.windows[:, heads, rows, batch]
        )
        return both

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """Products [tiles,Q,K] of a chunk's [tiles,Q,dim] and [tiles,K,dim], in at least float32."""
        return torch.bmm(a, b.transpose(1, 2), out=self.logits[: len(a)]).to(accumulator(a))


def softmax_to(logits: Tensor, out: Tensor) -> Tensor:
    """Softmax over the last axis, written to `out`."""
    if logits.dtype == out.dtype:
        return torch.softmax(logits, -1, out=out)
    return out.copy_(logits.softmax(-1))


def chunk_limit(device: torch.device) -> int:
    """Logits of a chunk on a device."""
    return CPU_CHUNK_LOGITS if device.type == "cpu" else CHUNK_LOGITS


def attend(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float, save: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The attention, outside autograd; arguments as in `polc.na2d`.

    Returns:
        The result, shaped like q, and, if `save` is set and they are not too many, the attention weights
        [tiles,Q,K].
    """
    tiling = Tiling.of(q, kernel_size)
    chunks = tiling.chunks(chunk_limit(q.device))
    table, scratch = Bias(tiling, rpb, q), Scratch(tiling, chunks, k, v)
    queries = tiling.tile(q * scale)
    keep = save and tiling.tiles * tiling.queries * tiling.keys <= SAVED_LOGITS
    kept = q.new_empty((tiling.tiles if keep else chunks[0].size, tiling.queries, tiling.keys))
    out = torch.empty_like(queries)
    for chunk in chunks:
        keys, values = scratch.keys_and_values(chunk).unbind()
        logits = scratch.products(queries[chunk.place], keys)
        table.add(logits, chunk)
        weights = softmax_to(logits, kept[chunk.place] if keep else kept[: chunk.size])
        torch.bmm(weights, values, out=out[chunk.place])
    return tiling.untile(out), kept if keep else None


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, out: Tensor, kept: Tensor | None,
    kernel_size: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v and, if given, rpb from that of `attend`'s result.

    Args:
        grad: gradient of the result.
        q: queries [B,H,W,heads,dim].
        k: keys, same shape.
        v: values, same shape.
        rpb: relative position bias [heads,2k-1,2k-1], or None.
        out: result of `attend`.
        kept: weights from `attend`, or None to compute them again.
        kernel_size: k, odd.
        scale: factor on q.k.
    """
    tiling = Tiling.of(q, kernel_size)
    chunks = tiling.chunks(chunk_limit(q.device))
    table, scratch = Bias(tiling, rpb, q), Scratch(tiling, chunks, k, v)
    queries, grads = tiling.tile(q * scale), tiling.tile(grad)
    mean = tiling.tile((grad.to(accumulator(q)) * out).sum(-1, keepdim=True))  # of the logits' gradients
    q_grad, kv_grad = torch.empty_like(queries), OverlapAdd(tiling, accumulator(q), q.device)
    bias_grad = None if rpb is None else table.no_gradient()
    recomputed, window_grads = torch.empty_like(scratch.logits), torch.empty_like(scratch.gathered)
    for chunk in chunks:
        both, both_grad = scratch.keys_and_values(chunk), window_grads[:, : chunk.size]
        if kept is not None:
            weights = kept[chunk.place]
        else:
            logits = scratch.products(queries[chunk.place], both[0])
            table.add(logits, chunk)
            weights = softmax_to(logits, recomputed[: chunk.size])
        torch.bmm(weights.transpose(1, 2), grads[chunk.place], out=both_grad[1])
        logits_grad = scratch.products(grads[chunk.place], both[1]).sub_(mean[chunk.place]).mul_(weights)
        if bias_grad is not None:
            table.add_gradient(bias_grad, logits_grad, chunk)
        logits_grad = logits_grad.to(q.dtype)
        torch.bmm(logits_grad, both[0], out=q_grad[chunk.place])
        torch.bmm(logits_grad.transpose(1, 2), queries[chunk.place], out=both_grad[0])
        kv_grad.add(chunk, both_grad)
    k_grad, v_grad = kv_grad.result(q.dtype)
    rpb_grad = None if rpb is None or bias_grad is None else table.gradient(bias_grad).to(rpb.dtype)
    return tiling.untile(q_grad).mul_(scale), k_grad, v_grad, rpb_grad


class TiledAttention(torch.autograd.Function):
    """What autograd sees of `attend`; can be differentiated once."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
    ) -> Tensor:
        """Keeps the attention weights for `backward`."""
        with torch.autocast(q.device.type, enabled=False):
            out, kept = attend(q, k, v, rpb, kernel_size, scale, save=True)
        ctx.options = kernel_size, scale
        ctx.save_for_backward(q, k, v, rpb, out, kept)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and rpb; RuntimeError where they were to be differentiated again."""
        if torch.is_grad_enabled():  # create_graph: its second derivative would silently be zero
            raise RuntimeError("tiled attention can be differentiated once; use the kernel 'reference'")
        with torch.autocast(grad.device.type, enabled=False):
            return *attend_backward(grad, *ctx.saved_tensors, *ctx.options), None, None


def na2d_tiled(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention over tiles of queries, a chunk of tiles at a time.

    Arguments and result as in `polc.na2d`; differentiable once. Works in q's type also under autocast.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (q, k, v, rpb)):
        return TiledAttention.apply(q, k, v, rpb, kernel_size, scale)
    with torch.autocast(q.device.type, enabled=False):
        return attend(q, k, v, rpb, kernel_size, scale)[0]
