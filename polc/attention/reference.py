"""Neighbourhood attention written as its definition: the oracle every other kernel is compared with."""

from __future__ import annotations

import torch
from torch import Tensor


def window_starts(length: int, kernel_size: int, device: torch.device | None = None) -> Tensor:
    """First key that each query of an axis attends to, int64 [length].

    NATTEN's rule: start = clamp(i - k // 2, 0, length - k); where the axis is shorter than k, 0.
    """
    queries = torch.arange(length, device=device)
    return (queries - kernel_size // 2).clamp(0, max(length - kernel_size, 0))


def na2d_reference(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention as dense attention under a mask, O((HW)^2): for tests and tiny inputs.

    Arguments and result as in `polc.na2d`.
    """
    batch, height, width, heads, dim = q.shape
    masks, offsets = [], []
    for length in (height, width):
        keys = torch.arange(length, device=q.device)[None]
        queries = torch.arange(length, device=q.device)[:, None]
        start = window_starts(length, kernel_size, q.device)[:, None]
        masks.append((keys >= start) & (keys < start + kernel_size))
        offsets.append((keys - queries + kernel_size - 1).clamp(0, 2 * kernel_size - 2))
    flat = [t.flatten(1, 2).transpose(1, 2) for t in (q, k, v)]
    logits = scale * flat[0] @ flat[1].transpose(-1, -2)
    logits = logits.view(batch, heads, height, width, height, width)
    if rpb is not None:
        logits = logits + rpb[:, offsets[0][:, None, :, None], offsets[1][None, :, None, :]]
    mask = masks[0][:, None, :, None] & masks[1][None, :, None, :]
    weights = logits.masked_fill(~mask, float("-inf")).flatten(4).softmax(-1).flatten(2, 3)
    return (weights @ flat[2]).transpose(1, 2).reshape(batch, height, width, heads, dim)
