"""The two entropy models, from compressai: the factorised prior of z and the Gaussian conditional of y."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from .tables import PriorArrays, scale_table

OFFICIAL_PRIOR = "entropy_bottleneck."
"""Beginning of the names of the factorised prior's weights and tables in official checkpoints."""
CONSTANTS = (
    *(".target", ".bound", ".scale_bound"),
    *("._quantized_cdf", "._cdf_length", "._offset", ".scale_table"),
)
"""Endings of official names of what is not a weight of the entropy models: constants, and stored tables."""
_SPELLINGS = {"matrices": "_matrix", "biases": "_bias", "factors": "_factor"}
_NEWER = re.compile(r"_?(matrices|biases|factors)\.(\d+)")


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

    def arrays(self) -> PriorArrays:
        """The weights in float64."""

        def arrays(values: Any) -> list[Any]:
            return [value.detach().cpu().double().numpy() for value in values]

        (quantiles,) = arrays([self.quantiles])
        return PriorArrays(arrays(self.matrices), arrays(self.biases), arrays(self.factors), quantiles[:, 0])


def gaussian_conditional() -> GaussianConditional:
    """Compressai's Gaussian conditional over the 64 scales."""
    return GaussianConditional(scale_table().tolist())


def official_prior_key(key: str) -> str:
    """The name of one of the prior's weights in official checkpoints: `matrices.0` -> `_matrix0`.

    So spells compressai up to 1.2.6; other keys stay as they are.
    """
    match = _NEWER.fullmatch(key)
    return _SPELLINGS[match[1]] + match[2] if match else key


def official_prior_keys(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors with the prior's keys, of whichever compressai, in their official spelling."""
    return {
        OFFICIAL_PRIOR + official_prior_key(key.removeprefix(OFFICIAL_PRIOR))
        if key.startswith(OFFICIAL_PRIOR)
        else key: value
        for key, value in tensors.items()
    }
