"""The architectures as data: which network of compressai each is, and what tells their checkpoints apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from compressai.models import FactorizedPrior, MeanScaleHyperprior, ScaleHyperprior
from torch import Tensor, nn

from polc_runtime.errors import CheckpointError
from polc_runtime.limits import MAX_WIDTH


@dataclass(frozen=True)
class Architecture:
    """One of compressai's image codecs.

    Attributes:
        name: as in compressai's zoo.
        network: compressai's class, made from N and M.
        hyper: whether there is a hyper-latent; without it the latent has a factorised prior.
        magnitude: whether the hyper-analysis reads |y|.
        means: whether the hyper-synthesis gives means behind the scales.
    """

    name: str
    network: type[nn.Module]
    hyper: bool = True
    magnitude: bool = False
    means: bool = True


_ENTRIES = (
    Architecture("bmshj2018-factorized", FactorizedPrior, hyper=False),
    Architecture("bmshj2018-hyperprior", ScaleHyperprior, magnitude=True, means=False),
    Architecture("mbt2018-mean", MeanScaleHyperprior),
)
ARCHITECTURES = {entry.name: entry for entry in _ENTRIES}

FIRST, LAST, HYPER_FIRST, HYPER_LAST = "g_a.0.weight", "g_a.6.weight", "h_a.0.weight", "h_s.4.weight"
NORMALISATION = "g_a.1.beta"
UNSUPPORTED = {
    "QuantABCD": "variable-rate models (QuantABCD)",
    "context_prediction.": "serial context models, as of mbt2018 and cheng2020 (context_prediction)",
    "latent_codec.": "latent codecs, as of ELIC and checkerboard models (latent_codec)",
    "g_a.0.conv1.": "residual analysis networks, as of cheng2020 (g_a.0.conv1)",
}
"""What names of other models of compressai begin with, and what these models have."""


@dataclass(frozen=True)
class CompressAiConfig:
    """Dimensions of one codec; stored in bundles.

    Attributes:
        architecture: name in `ARCHITECTURES`.
        N: channels inside the networks, and of the hyper-latent.
        M: channels of the latent.
    """

    architecture: str
    N: int
    M: int

    def to_dict(self) -> dict[str, Any]:
        """The dimensions as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> CompressAiConfig:
        """Reads `to_dict`'s data.

        Raises:
            CheckpointError: a field is missing, unknown, or does not make a model.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or data.keys() != names:
            raise CheckpointError(f"model dimensions are not usable: expected {', '.join(sorted(names))}")
        config = cls(**data)
        if config.architecture not in ARCHITECTURES:
            raise CheckpointError(
                f"no architecture is named {config.architecture!r}; there are {', '.join(ARCHITECTURES)}"
            )
        if not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in (config.N, config.M)):
            raise CheckpointError(f"model dimensions are not usable: expected widths from 1 to {MAX_WIDTH}")
        return config


def infer_config(official: Mapping[str, Tensor]) -> CompressAiConfig:
    """Architecture and dimensions of the model whose official tensors these are.

    Raises:
        CheckpointError: it is one that is not supported, or a tensor that tells a dimension is missing.
    """
    for beginning, what in UNSUPPORTED.items():
        if any(key.startswith(beginning) for key in official):
            raise CheckpointError(
                f"models of CompressAI with {what} are not supported; there are {', '.join(ARCHITECTURES)}"
            )
    if NORMALISATION not in official:
        raise CheckpointError(f"missing weights: {NORMALISATION}")
    n, m = (_channels(official, key) for key in (FIRST, LAST))
    if HYPER_FIRST not in official:
        return CompressAiConfig("bmshj2018-factorized", n, m)
    means = _channels(official, HYPER_LAST) == 2 * m
    return CompressAiConfig("mbt2018-mean" if means else "bmshj2018-hyperprior", n, m)


def _channels(official: Mapping[str, Tensor], key: str) -> int:
    """Output channels of a convolution."""
    if key not in official:
        raise CheckpointError(f"missing weights: {key}")
    shape = official[key].shape
    if len(shape) != 4 or not 1 <= shape[0] <= MAX_WIDTH:
        raise CheckpointError(f"{key} has the shape {tuple(shape)}, which tells no size")
    return int(shape[0])
