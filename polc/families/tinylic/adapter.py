"""The adapter between the codec's latent and a vision model: what stands in for the model's stem."""

from __future__ import annotations

from torch import Tensor, nn

from .blocks import Block

KERNEL_SIZE = 7
MLP_RATIO = 4.0


class LatentAdapter(nn.Module):
    """A 1x1 convolution, a pixel shuffle and one quality-conditioned attention block (no outer shortcut).

    Args:
        latent_channels: M, channels of the latent.
        channels: C, channels that the vision model's first stage takes.
        factor: r, how much finer the model's first grid is than the latent's.
        head_dim: channels of one attention head.
        levels: quality levels.
        padding: rows and columns repeated at the lower and right border before the attention.
        rel_pos_bias: as in `NeighborhoodAttention2d`.
    """

    def __init__(
        self,
        latent_channels: int,
        channels: int,
        factor: int,
        head_dim: int,
        levels: int = 8,
        padding: int = 0,
        rel_pos_bias: bool = True,
    ) -> None:
        super().__init__()
        self.expand = nn.Conv2d(latent_channels, channels * factor * factor, 1)
        self.shuffle = nn.PixelShuffle(factor)
        self.pad = nn.ReplicationPad2d((0, padding, 0, padding)) if padding else nn.Identity()
        self.block = Block(channels, head_dim, KERNEL_SIZE, MLP_RATIO, levels, rel_pos_bias=rel_pos_bias)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Features for a vision model's first stage.

        Args:
            y_hat: decoded latent [B,M,h,w], without the inverse gain.
            quality: float32 [B], within 1..levels, real-valued.

        Returns:
            Tensor [B,C,r*h+padding,r*w+padding].
        """
        x = self.pad(self.shuffle(self.expand(y_hat)))
        return self.block(x.permute(0, 2, 3, 1), quality).permute(0, 3, 1, 2)
