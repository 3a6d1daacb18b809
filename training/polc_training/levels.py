"""Which quality level each sample of a batch is trained at."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_levels(batch: int, levels: int, stratified: bool) -> Tensor:
    """Integer quality levels of a batch, float32 [B], from torch's global generator on the CPU.

    Args:
        batch: B.
        levels: how many there are; levels count from 1.
        stratified: False draws one level for the whole batch, as the official code does; True cuts the levels
            in B equal ranges, draws one of each and shuffles them, so that every batch covers them all.
    """
    if not stratified:
        return torch.randint(1, levels + 1, (1,)).float().expand(batch).clone()
    places = (torch.arange(batch) + torch.rand(batch)) / batch
    drawn = (places * levels).floor().clamp(max=levels - 1) + 1
    return drawn[torch.randperm(batch)]
