"""Neighbourhood attention with relative position bias: one operator, several kernels."""

from .module import KERNELS, TRAINING_KERNELS, NeighborhoodAttention2d, na2d, set_attention_kernel

__all__ = ["KERNELS", "TRAINING_KERNELS", "NeighborhoodAttention2d", "na2d", "set_attention_kernel"]
