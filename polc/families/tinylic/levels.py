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
        quality: float32 [B], within 1..levels.

    Returns:
        Tensor [B, C].
    """
    lower = quality.floor()
    fraction = (quality - lower).unsqueeze(-1)
    above = lower.to(torch.int64)
    magnitudes = torch.cat([table, table[-1:]]).abs()
    at_floor, at_next = magnitudes.index_select(0, above - 1), magnitudes.index_select(0, above)
    return at_floor.pow(1 - fraction) * at_next.pow(fraction)
