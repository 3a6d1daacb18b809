"""Level tables: per-channel factors for each quality level, interpolated geometrically in between."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate_levels(table: Tensor, quality: Tensor) -> Tensor:
    """Per-channel factors at a real-valued quality.

    |t[s]|^(1-l) * |t[s+1]|^l with s = floor(q) - 1, l = q - floor(q) (POLC, ICME 2025; the tables may hold
    negative entries, the model takes their magnitude).

    Args:
        table: [levels, C].
        quality: float32 [B], 1..levels; outside it is clamped.

    Returns:
        Tensor [B, C].
    """
    last = table.shape[0] - 1
    position = quality.clamp(1, last + 1) - 1
    lower = position.floor()
    fraction = (position - lower).unsqueeze(-1)
    index = lower.to(torch.int64)
    magnitudes = table.abs()
    below = magnitudes.index_select(0, index)
    above = magnitudes.index_select(0, (index + 1).clamp(max=last))
    return below.pow(1 - fraction) * above.pow(fraction)
