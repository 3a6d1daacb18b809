"""Quality-conditioned attention blocks and the groups of them that the transforms are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...attention import NeighborhoodAttention2d
from .levels import interpolate_levels


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: drops a whole sample's branch with probability `rate`, scaling the rest up."""
    if rate == 0.0 or not training:
        return x
    keep = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device, dtype=x.dtype) >= rate
    return x * keep / (1 - rate)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between, on the last axis."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Applies both layers to `x` [..., dim]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention and MLP, each scaled by a factor per channel and quality level, on NHWC maps.

    x += |gamma_1[q]| * NA(LN(x)); x += |gamma_2[q]| * MLP(LN(x)).

    Args:
        dim: channels.
        head_dim: channels of one attention head.
        kernel_size: attention neighbourhood.
        mlp_ratio: hidden width of the MLP over dim.
        levels: rows of the gamma tables; 0 for none, all factors being 1.
        drop_path_rate: stochastic depth in training.
        rel_pos_bias: as in `NeighborhoodAttention2d`.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int,
        kernel_size: int,
        mlp_ratio: float,
        levels: int,
        drop_path_rate: float = 0.0,
        rel_pos_bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = NeighborhoodAttention2d(dim, head_dim, kernel_size, rel_pos_bias)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.levels = levels
        if levels:
            self.gamma_1 = nn.Parameter(torch.ones(levels, dim))
            self.gamma_2 = nn.Parameter(torch.ones(levels, dim))
        self.drop_path_rate = drop_path_rate

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """`x` [B,H,W,dim], `quality` [B] -> [B,H,W,dim]."""
        for table, norm, branch in (
            ("gamma_1", self.norm1, self.attn),
            ("gamma_2", self.norm2, self.mlp),
        ):
            change = branch(norm(x))
            if self.levels:
                change = interpolate_levels(getattr(self, table), quality)[:, None, None, :] * change
            x = x + drop_path(change, self.drop_path_rate, self.training)
        return x


class BlockGroup(nn.ModuleList):
    """Blocks in a row on an NCHW map, with a shortcut around all of them."""

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """`x` [B,C,H,W], `quality` [B] -> [B,C,H,W]."""
        y = x.permute(0, 2, 3, 1)
        for block in self:
            y = block(y, quality)
        return y.permute(0, 3, 1, 2) + x
