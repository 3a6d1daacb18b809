"""The loss of stage 1: lambda * bpp + distortion, with a weight for each quality level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LAMBDAS = (18.0, 9.32, 4.83, 2.5, 1.3, 0.67, 0.35, 0.18)
"""Weights of the rate by level, official, for MSE on [-1, 1] plus LPIPS (POLC, ICME 2025)."""

MSE_WEIGHT = 0.01 * 127.5**2
"""Weight of the MSE on [-1, 1] where it is the whole distortion: lambda * bpp + 162.6 * MSE is, up to a
factor, CompressAI's lambda' * 255^2 * MSE + bpp with lambda' = 0.01 / lambda."""

MSE_LAMBDAS_PRIME = (0.0006, 0.04)
"""Least and greatest lambda' of the table without a perceptual loss: about 0.1 to 1 bpp on photos."""


def mse_lambdas(levels: int) -> tuple[float, ...]:
    """Weights of the rate by level where MSE is the whole distortion: lambda' log-spaced, best level last."""
    return tuple((0.01 / np.geomspace(*MSE_LAMBDAS_PRIME, levels)).tolist())


def official_lambdas(levels: int) -> tuple[float, ...]:
    """`LAMBDAS` for `levels` levels: as they are for as many, else interpolated between the same ends."""
    last = len(LAMBDAS) - 1
    places = np.linspace(0, last, levels)
    return tuple(float(np.interp(place, range(last + 1), LAMBDAS)) for place in places)


@dataclass(frozen=True)
class RateDistortion:
    """Weights of stage 1's loss.

    Attributes:
        lambdas: of the rate in bits per pixel, by level.
        mse_weight: of the MSE on [-1, 1].
        perceptual_weight: of LPIPS, where there is one.
        balance: b in the weight lambda^-b of a sample's loss, scaled to a mean of 1 over the levels; 0 weighs
            all samples alike, 0.5 has every level's gradient count about alike.
    """

    lambdas: Sequence[float]
    mse_weight: float = 1.0
    perceptual_weight: float = 1.0
    balance: float = 0.0

    @classmethod
    def official(cls, levels: int) -> RateDistortion:
        """The method's weights, for MSE and LPIPS."""
        return cls(official_lambdas(levels))

    @classmethod
    def mse_only(cls, levels: int, balance: float = 0.5) -> RateDistortion:
        """The weights for training without a perceptual loss."""
        return cls(mse_lambdas(levels), mse_weight=MSE_WEIGHT, perceptual_weight=0.0, balance=balance)

    def rate_weights(self, quality: Tensor) -> Tensor:
        """Lambda of each sample [B], for integer levels [B]."""
        return quality.new_tensor(self.lambdas)[quality.long() - 1]

    def sample_weights(self, quality: Tensor) -> Tensor:
        """Weight of each sample's loss [B]."""
        weights = quality.new_tensor(self.lambdas).pow(-self.balance)
        return (weights / weights.mean())[quality.long() - 1]

    def __call__(self, quality: Tensor, bpp: Tensor, mse: Tensor, perceptual: Tensor | None) -> Tensor:
        """The loss, a scalar: the mean over the batch.

        Args:
            quality: integer level of each sample, float32 [B].
            bpp: bits per pixel [B].
            mse: mean squared error on [-1, 1] [B].
            perceptual: LPIPS [B], or None.
        """
        loss = self.rate_weights(quality) * bpp + self.mse_weight * mse
        if perceptual is not None:
            loss = loss + self.perceptual_weight * perceptual
        return (self.sample_weights(quality) * loss).mean()


def mean_squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """MSE of each sample [B] on [-1, 1], for images [B,3,H,W] in 0..1."""
    return torch.square(2 * (x - x_hat)).flatten(1).mean(1)


def bits_per_pixel(bits: Tensor, image: Tensor) -> Tensor:
    """Bits [B] over the pixels of `image` [B,3,H,W]."""
    return bits / (image.shape[-2] * image.shape[-1])


def level_psnr(mse: Tensor) -> Tensor:
    """PSNR in dB of an MSE on [-1, 1]."""
    return -10 * torch.log10(mse / 4)
