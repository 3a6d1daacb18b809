"""Neighbourhood attention with relative position bias: one operator, several kernels."""

from .module import (
    KERNELS,
    TRAINING_KERNELS,
    NeighborhoodAttention2d,
    attention_kernel,
    na2d,
    set_attention_kernel,
)

__all__ = [
    "KERNELS",
    "TRAINING_KERNELS",
    "NeighborhoodAttention2d",
    "attention_kernel",
    "na2d",
    "set_attention_kernel",
]
