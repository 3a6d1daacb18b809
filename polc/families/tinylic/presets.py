"""Model dimensions as data: the official TinyLIC-VR size and small ones with the same structure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from polc_runtime.bitstream.schedule import group_sizes
from polc_runtime.errors import CheckpointError
from polc_runtime.limits import MAX_KERNEL, MAX_LAYERS, MAX_WIDTH


@dataclass(frozen=True)
class ModelConfig:
    """Dimensions of one codec; stored in every checkpoint and bundle.

    Attributes:
        dims: channels after each of the four analysis convolutions; the last is M, the latent's.
        depths: attention blocks after each of them (mirrored in the synthesis).
        hyper_dim: N', channels of the hyper-latent z.
        hyper_depths: blocks of the two hyper-analysis stages (mirrored in the hyper-synthesis).
        head_dim: channels of one attention head.
        kernel_size: neighbourhood of the analysis and synthesis attention, odd.
        hyper_kernel_size: neighbourhood of the hyper networks' attention, odd.
        mlp_ratio: hidden width of the MLP over the block's channels.
        levels: quality levels; quality is real, 1..levels. 0 for a model of one rate: TinyLIC.
        context_width: hidden width of the channel-context nets; None for the group's own channel count.
        entropy_width: hidden width of the entropy-parameter nets; None for the official rule.
        drop_path: largest stochastic-depth rate; it rises linearly from 0 with depth.
        rel_pos_bias: whether attention has a relative position bias.
    """

    dims: tuple[int, ...] = (128, 192, 256, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    hyper_dim: int = 192
    hyper_depths: tuple[int, ...] = (2, 2)
    head_dim: int = 16
    kernel_size: int = 7
    hyper_kernel_size: int = 3
    mlp_ratio: float = 2.0
    levels: int = 8
    context_width: int | None = None
    entropy_width: int | None = None
    drop_path: float = 0.1
    rel_pos_bias: bool = True

    @property
    def latent_channels(self) -> int:
        """M, channels of the latent y."""
        return self.dims[-1]

    @property
    def groups(self) -> tuple[int, ...]:
        """Channels of the four groups that the context model codes one after another."""
        return group_sizes(self.latent_channels)

    def to_dict(self) -> dict[str, Any]:
        """The dimensions as JSON-able data."""
        fields = dataclasses.asdict(self).items()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields}

    @classmethod
    def from_dict(cls, data: Any) -> ModelConfig:
        """Reads `to_dict`'s data.

        Raises:
            CheckpointError: a field is unknown, or does not make a model.
        """
        if not isinstance(data, dict):
            raise CheckpointError("model dimensions are not usable: expected a value for each name")
        fields = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - fields):
            raise CheckpointError(f"model dimensions hold unknown fields: {', '.join(unknown)}")
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            config = cls(**values)
            config.check()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"model dimensions are not usable: {error}") from None
        return config

    def check(self) -> None:
        """Raises ValueError where the dimensions do not make a model."""
        if len(self.dims) != 4 or len(self.depths) != 4 or len(self.hyper_depths) != 2:
            raise ValueError("expected 4 dims, 4 depths and 2 hyper_depths")
        optional = [width for width in (self.context_width, self.entropy_width) if width is not None]
        widths = (*self.dims, self.hyper_dim, self.head_dim, *optional)
        if not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in widths):
            raise ValueError(f"expected widths from 1 to {MAX_WIDTH}")
        depths = (*self.depths, *self.hyper_depths)
        if not all(type(depth) is int and 0 <= depth <= MAX_LAYERS for depth in depths):
            raise ValueError(f"expected depths of 0 to {MAX_LAYERS} blocks")
        if not (0 < max(self.dims) * self.mlp_ratio <= MAX_WIDTH and 0 <= self.drop_path < 1):
            raise ValueError("mlp_ratio or drop_path is out of range")
        if any(dim % self.head_dim for dim in (*self.dims, self.hyper_dim)):
            raise ValueError(f"every width must be a positive multiple of head_dim={self.head_dim}")
        kernels = (self.kernel_size, self.hyper_kernel_size)
        if not all(type(k) is int and k % 2 and 1 <= k <= MAX_KERNEL for k in kernels):
            raise ValueError(f"attention kernel sizes must be odd, from 1 to {MAX_KERNEL}")
        if type(self.levels) is not int or self.levels not in (0, *range(2, 9)):
            raise ValueError(f"expected 2 to 8 quality levels, or 0 for one rate, got {self.levels}")
        group_sizes(self.latent_channels)


PRESETS: dict[str, ModelConfig] = {
    "polc-base": ModelConfig(),
    "polc-nano": ModelConfig(
        dims=(32, 48, 64, 160),
        depths=(1, 1, 2, 1),
        hyper_dim=48,
        hyper_depths=(1, 1),
        context_width=16,
        entropy_width=128,
        drop_path=0.0,
    ),
    "polc-tiny": ModelConfig(
        dims=(16, 16, 16, 32),
        depths=(1, 1, 1, 1),
        hyper_dim=16,
        hyper_depths=(1, 1),
        head_dim=8,
        context_width=8,
        entropy_width=16,
    ),
}


def preset(name: str) -> ModelConfig:
    """The dimensions of a named preset.

    Raises:
        KeyError: no preset has that name; the message lists the ones there are.
    """
    if name not in PRESETS:
        raise KeyError(f"no preset is named {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
