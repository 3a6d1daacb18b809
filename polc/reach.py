"""How far the convolutions of a network reach: what tiles of large images must overlap by."""

from __future__ import annotations

from torch import nn


def convolution_reach(network: nn.Module, before: int = 0) -> int:
    """How far from a cut the outputs of convolutions in a row differ, in positions of the last one's output.

    Args:
        network: convolutions, transposed convolutions and pointwise layers, in the order they run; without
            branches, each padded by half its kernel.
        before: how far from the cut the network's input differs already, in positions.
    """
    reach = before
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            # Output i reads inputs s*i - k//2 .. s*i + k//2.
            reach = -(-(reach + layer.kernel_size[0] // 2) // layer.stride[0])
        elif isinstance(layer, nn.ConvTranspose2d):
            # Output i reads inputs up to (i + k//2) // s.
            reach = layer.stride[0] * reach + layer.kernel_size[0] // 2
    return reach


def total_stride(network: nn.Module) -> int:
    """Positions of a downward network's input to one of its output, along an axis."""
    stride = 1
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            stride *= layer.stride[0]
    return stride
