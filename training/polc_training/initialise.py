"""Closed-form initialisation of a codec: principal components in the transforms, measured scales elsewhere.

Started so, a codec reconstructs images at once, and training spends its steps on coding them better. Stage by
stage, the convolution of the analysis takes 2x2 blocks of its input to their principal components and the
transposed convolution of the synthesis takes them back. The attention blocks start as the identity.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polc.families.tinylic.blocks import Block
from polc.families.tinylic.codec import TinyLicCodec

from .rate_distortion import RateDistortion

GAIN = 50.0
"""Gain of a level over the square root of its lambda', for orthonormal components of images in 0..1."""
HYPER_SPREAD = 2.0
"""Standard deviation that the hyper-latent starts with, in quantisation steps, at the middle level."""
LEAST_SPREAD = 1e-3
"""Standard deviations are taken to be no smaller than this part of their root mean square."""


@torch.no_grad()
def initialise(codec: TinyLicCodec, images: Tensor, weights: RateDistortion) -> None:
    """Sets a codec's weights from images; what it does not set keeps the random values it has.

    Args:
        codec: the model.
        images: [B,3,H,W] in 0..1, H and W multiples of 64; a few dozen crops of 128 do.
        weights: of the loss the codec will be trained with; they set the gains.
    """
    for module in codec.modules():
        for layer in (module.attn.proj, module.mlp.fc2) if isinstance(module, Block) else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    quality = torch.ones(len(images), device=images.device)
    _initialise_transforms(codec, images, quality)
    _set_gains(codec, weights)
    middle = float(codec.gain.mean(1).log().mean().exp())
    _whiten_norms(codec, images, quality)
    spread = middle * _spread(codec.g_a(images, quality).transpose(0, 1))
    _scale_entropy_nets(codec, spread)
    _scale_hyper_latent(codec, images, middle)


def _initialise_transforms(codec: Any, images: Tensor, quality: Tensor) -> None:
    components, x = 3, images
    for index, (down, up) in enumerate(zip(codec.g_a, reversed(list(codec.g_s)), strict=True)):
        mean, basis = principal_components(x[:, :components], down.conv.out_channels)
        _set_stage(down, up, basis, mean, colours=index == 0)
        components = len(basis)
        x = down(x, quality)


def principal_components(x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Mean [4C] and greatest principal components [n,4C] of the 2x2 blocks of `x` [B,C,H,W], n <= `most`.

    A block's values are ordered by channel, then row, then column.
    """
    blocks = F.unfold(x, 2, stride=2).transpose(0, 1).flatten(1).double()
    mean = blocks.mean(1)
    _, vectors = torch.linalg.eigh(torch.cov(blocks))
    return mean.to(x.dtype), vectors.flip(1).T[:most].to(x.dtype)


def _set_stage(down: Any, up: Any, basis: Tensor, mean: Tensor, colours: bool) -> None:
    """Puts components into the middle taps of a convolution, and their transpose into its counterpart.

    Both are halved: the shortcut around the blocks, which are the identity, doubles what passes.
    """
    count, inputs = len(basis), basis.shape[1] // 4
    taps = 0.5 * basis.unflatten(1, (inputs, 2, 2))
    for conv in (down.conv, up.conv):
        first = conv.kernel_size[0] // 2
        middle = conv.weight[..., first : first + 2, first : first + 2]
        conv.weight[:count].zero_()
        middle[:count, :inputs] = taps
        conv.bias.zero_()
    down.conv.bias[:count] = -0.5 * basis @ mean
    if colours:
        up.conv.bias.copy_(mean.unflatten(0, (inputs, 4)).mean(1))


def _set_gains(codec: TinyLicCodec, weights: RateDistortion) -> None:
    """Gain = 50 * sqrt(lambda'), lambda' in CompressAI's scale, and its inverse, for every channel alike."""
    scale = 4 * weights.mse_weight / 255**2
    gains = GAIN * np.sqrt(scale / np.asarray(weights.lambdas))
    codec.gain.copy_(codec.gain.new_tensor(gains)[:, None].expand_as(codec.gain))
    codec.inverse_gain.copy_(1 / codec.gain)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation of each row of `values`, [C, ...] -> [C]."""
    deviations = values.flatten(1).std(1)
    return deviations.clamp(min=LEAST_SPREAD * float(deviations.square().mean().sqrt()))


def _whiten_norms(codec: TinyLicCodec, images: Tensor, quality: Tensor) -> None:
    """Scales every LayerNorm of the transforms so that each channel leaves it with unit deviation."""
    for transform, x in ((codec.g_a, images), (codec.g_s, codec.g_a(images, quality))):
        norms = [module for module in transform.modules() if isinstance(module, nn.LayerNorm)]
        outputs: dict[nn.Module, Tensor] = {}

        def keep(norm: nn.Module, inputs: Any, output: Tensor, outputs: Any = outputs) -> None:
            outputs[norm] = output

        with ExitStack() as hooks:
            for norm in norms:
                hooks.callback(norm.register_forward_hook(keep).remove)
            transform(x, quality)
        for norm in norms:
            norm.weight.div_(_spread(outputs[norm].flatten(0, -2).T))


def _scale_entropy_nets(codec: Any, spread: Tensor) -> None:
    """Divides what reads the latent by its channels' spread [M], multiplies what predicts it."""
    codec.h_a[0].conv.weight.div_(spread[:, None, None])
    context = codec.context
    for index in context.SPATIAL_KERNELS:
        net = context.spatial_net(index)
        net.weight.div_(spread[context.steps[index].channels][:, None, None])
    start, params = 0, 2 * len(spread)
    for group, size in enumerate(codec.config.groups):
        context.channel[group][0].weight[:, params:].div_(spread[:start, None, None])
        here = spread[start : start + size]
        last = context.entropy[group][-1]
        last.weight.mul_(torch.cat([here, here])[:, None, None, None])
        last.bias.copy_(torch.cat([here, torch.zeros_like(here)]))
        start += size


def _scale_hyper_latent(codec: Any, images: Tensor, middle: float) -> None:
    """Scales the last convolution of h_a so that the hyper-latent starts with `HYPER_SPREAD`."""
    quality = torch.ones(len(images), device=images.device)
    z = codec.h_a(codec.g_a(images, quality) * middle, quality)
    factor = HYPER_SPREAD / float(z.std())
    last = codec.h_a[-1].conv
    last.weight.mul_(factor)
    last.bias.mul_(factor)
