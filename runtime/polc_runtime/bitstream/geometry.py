"""The sizes of an image and its latents: part of the bitstream (docs/bitstream.md, "Sizes")."""

from __future__ import annotations

PAD_MULTIPLE = 64
PAD_LEAST = 192
LATENT_STRIDE = 16
HYPER_STRIDE = 64


def padded_size(height: int, width: int) -> tuple[int, int]:
    """Height and width the networks see: the next multiples of 64, at least 192."""

    def up(side: int) -> int:
        return max(PAD_LEAST, -(-side // PAD_MULTIPLE) * PAD_MULTIPLE)

    return up(height), up(width)
