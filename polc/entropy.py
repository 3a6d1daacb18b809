"""The two entropy models, from compressai: the factorised prior of z and the Gaussian conditional of y."""

from __future__ import annotations

from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from .tables import scale_table


class _RoundStraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def round_straight_through(x: Tensor) -> Tensor:
    """Rounds half to even, exactly; the gradient passes as if it had not."""
    return _RoundStraightThrough.apply(x)


class FactorizedPrior(EntropyBottleneck):
    """compressai's factorised prior (Ballé et al., 2018); its coding tables are made by `polc.tables`."""

    @property
    def medians(self) -> Tensor:
        """Medians of the channels [N']."""
        return self.quantiles[:, 0, 1]

    def quantize_hyper(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (straight-through) and z_hat = symbols + medians of `z` [B,N',h,w]."""
        medians = self.medians.detach()[None, :, None, None]
        symbols = round_straight_through(z - medians)
        return symbols, symbols + medians


def gaussian_conditional() -> GaussianConditional:
    """Compressai's Gaussian conditional over the 64 scales."""
    return GaussianConditional(scale_table().tolist())
