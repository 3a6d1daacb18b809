"""The four transforms g_a, h_a, h_s and g_s: strided convolutions with attention blocks between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from .blocks import Block, BlockGroup
from .presets import ModelConfig


class Stage(nn.Module):
    """One convolution and one group of blocks; `down` runs the convolution first, `up` the blocks."""

    def __init__(self, conv: nn.Module, blocks: BlockGroup, down: bool) -> None:
        super().__init__()
        self.conv, self.blocks, self.down = conv, blocks, down

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """`x` [B,C,H,W], `quality` [B] -> [B,C',H/2,W/2] going down, [B,C',2H,2W] going up."""
        return self.blocks(self.conv(x), quality) if self.down else self.conv(self.blocks(x, quality))


class Transform(nn.ModuleList):
    """Stages in a row, all conditioned on the quality."""

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Runs every stage."""
        for stage in self:
            x = stage(x, quality)
        return x


def _conv(inputs: int, outputs: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2)


def _deconv(inputs: int, outputs: int, kernel_size: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(
        inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2, output_padding=1
    )


def _group(config: ModelConfig, dim: int, kernel_size: int, rates: Sequence[float]) -> BlockGroup:
    return BlockGroup(
        Block(
            dim,
            config.head_dim,
            kernel_size,
            config.mlp_ratio,
            config.levels,
            drop_path_rate=rate,
            rel_pos_bias=config.rel_pos_bias,
        )
        for rate in rates
    )


def _rates(config: ModelConfig, depths: Sequence[int]) -> list[list[float]]:
    rates = iter(np.linspace(0, config.drop_path, sum(depths)).tolist())
    return [[next(rates) for _ in range(depth)] for depth in depths]


def make_transforms(config: ModelConfig) -> tuple[Transform, Transform, Transform, Transform]:
    """Builds g_a, h_a, h_s and g_s of a model.

    The stochastic-depth rate rises along g_a then h_a, and again along h_s then g_s.
    """
    k, hyper_k = config.kernel_size, config.hyper_kernel_size
    dims, hyper = config.dims, config.hyper_dim
    latent = config.latent_channels
    down = _rates(config, (*config.depths, *config.hyper_depths))
    up = _rates(config, (*config.hyper_depths[::-1], *config.depths[::-1]))

    def downward(shapes: Sequence[tuple[int, int, int]], kernel: int, rates: list[list[float]]) -> Transform:
        return Transform(
            Stage(_conv(i, o, conv_k), _group(config, o, kernel, r), down=True)
            for (i, o, conv_k), r in zip(shapes, rates, strict=True)
        )

    def upward(shapes: Sequence[tuple[int, int, int]], kernel: int, rates: list[list[float]]) -> Transform:
        return Transform(
            Stage(_deconv(i, o, conv_k), _group(config, i, kernel, r), down=False)
            for (i, o, conv_k), r in zip(shapes, rates, strict=True)
        )

    a, b, c, d = dims
    g_a = downward([(3, a, 5), (a, b, 3), (b, c, 3), (c, d, 3)], k, down[:4])
    h_a = downward([(latent, hyper, 3), (hyper, hyper, 3)], hyper_k, down[4:])
    h_s = upward([(hyper, hyper, 3), (hyper, 2 * latent, 3)], hyper_k, up[:2])
    g_s = upward([(d, c, 3), (c, b, 3), (b, a, 3), (a, 3, 5)], k, up[2:])
    return g_a, h_a, h_s, g_s
