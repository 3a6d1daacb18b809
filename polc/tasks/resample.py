"""Resampling and pooling as products with dense matrices made by index arithmetic: exportable at any size."""

from __future__ import annotations

import torch
from torch import Tensor


def axis(x: Tensor, dim: int) -> Tensor:
    """Indexes along an axis of `x`: int64 [L], a tensor in traced graphs too, where L is not known."""
    return torch.arange(x.shape[dim], device=x.device)


def bicubic_weights(source: int, target: Tensor) -> Tensor:
    """Weights of an antialiased bicubic resampling along one axis, half-pixel centres.

    As `torch.nn.functional.interpolate(mode="bicubic", antialias=True)`: Keys' kernel with a = -0.5
    (Keys, IEEE TASSP 1981), stretched where the axis shrinks, weights normalised at the borders. Distances
    are quotients of whole numbers, so that float32 is as good as float64.

    Args:
        source: length of the axis before.
        target: indexes 0, 1, ... of the axis after, [L].

    Returns:
        float32 [L, source].
    """
    length = target[-1:] + 1
    positions = torch.arange(source, device=target.device)
    gap = ((2 * positions + 1) * length - (2 * target[:, None] + 1) * source).abs()
    d = gap.float() / (2 * length.clamp(min=source)).float()
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = torch.where(d < 1, near, torch.where(d < 2, far, torch.zeros_like(d)))
    return weights / weights.sum(1, keepdim=True)


def average_weights(source: Tensor, bins: int) -> Tensor:
    """Weights of an adaptive average pooling along one axis, as `torch.nn.AdaptiveAvgPool2d`.

    Bin b averages the elements from floor(b L / bins) up to, but without, ceil((b + 1) L / bins).

    Args:
        source: indexes 0, 1, ... of the axis, [L].
        bins: length of the axis after.

    Returns:
        float32 [bins, L].
    """
    length = source[-1:] + 1
    index = torch.arange(bins, device=source.device)[:, None]
    start = index * length // bins
    end = ((index + 1) * length + bins - 1) // bins
    inside = ((source >= start) & (source < end)).float()
    return inside / inside.sum(1, keepdim=True)


def resample_grid(grid: Tensor, like: Tensor) -> Tensor:
    """Resamples a grid of embeddings, bicubic and antialiased, to the size of a map.

    Args:
        grid: [g,g',C].
        like: a map [B,H,W,...] that gives the size.

    Returns:
        Tensor [H,W,C]; the grid itself where the size is the same.
    """
    rows = bicubic_weights(grid.shape[0], axis(like, 1)).to(grid.dtype)
    columns = bicubic_weights(grid.shape[1], axis(like, 2)).to(grid.dtype)
    return columns @ (rows @ grid.flatten(1)).unflatten(1, grid.shape[1:])


def average_pool(x: Tensor, bins: int) -> Tensor:
    """Adaptive average pooling of `x` [B,C,H,W] to [B,C,bins,bins]."""
    rows = average_weights(axis(x, 2), bins).to(x.dtype)
    columns = average_weights(axis(x, 3), bins).to(x.dtype)
    return rows @ x @ columns.T
