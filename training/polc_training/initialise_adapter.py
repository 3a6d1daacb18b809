"""Closed-form initialisation of an adapter: least squares from latents to what the teacher's stem gives.

Started so, a vision model reads latents from the first step, and training refines it. A linear map from the
latent fits the stem's output; the block then normalises it, which takes out the level's gain, and its MLP,
set to the identity, brings it to the scale of the stem, level by level. The attention starts silent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from polc.families.tinylic.adapter import LatentAdapter
from polc_runtime.errors import UsageError

from .stages.stage2 import AdapterStage

SIZE = 0.1
"""Scale of the linear fit before it is normalised: small, so that what bypasses the block hardly counts."""
QUANTISATION = 1 / 12
"""Variance of the error that rounding makes; it keeps channels that say less from being blown up."""
LEAST_FACTOR = 0.05
"""Least factor of a level: factors are magnitudes, interpolated geometrically."""


@torch.no_grad()
def initialise_adapter(stage: AdapterStage, image: Tensor) -> float:
    """Sets the adapter's weights from images.

    Args:
        stage: holds the codec, the adapter and the vision model, which must be trained already.
        image: [B,3,H,W] in 0..1, of any size; a few dozen do, and one for each level at least.

    Returns:
        The part of the variance of the stem's output that the adapter does not give, 0..1 and more.

    Raises:
        UsageError: there are fewer images than levels.
    """
    adapter, levels = stage.task.adapter, stage.codec.config.levels
    if len(image) < levels:
        raise UsageError(f"expected {levels} images at least to fit an adapter to, got {len(image)}")
    quality = torch.arange(len(image), device=image.device) % levels + 1.0
    y_hat, _ = stage.encode(image, quality)
    target = _stem_map(stage, image, y_hat)
    _fit_linear(adapter, y_hat, target, _level_scales(y_hat, quality, levels)[quality.long() - 1])
    _pass_through(adapter)
    _fit_levels(adapter, y_hat, target, quality)
    found = adapter(y_hat, quality)[..., : target.shape[2], : target.shape[3]]
    return float(F.mse_loss(found, target) / target.var())


def _stem_map(stage: AdapterStage, image: Tensor, y_hat: Tensor) -> Tensor:
    """The stem's output as a map [B,C,r*h,r*w], without the rows and columns that repeat."""
    family, target = stage.task.family, stage.teach(image)[0]
    rows, columns = (family.factor * side for side in y_hat.shape[2:])
    if family.parts.enter(y_hat).shape != y_hat.shape:
        target = target.permute(0, 3, 1, 2)
    return target[..., :rows, :columns]


def _level_scales(y_hat: Tensor, quality: Tensor, levels: int) -> Tensor:
    """Root mean square of the latents of each level: [levels]."""
    squares = [y_hat[quality == level].square().mean() for level in range(1, levels + 1)]
    return torch.stack(squares).sqrt().clamp(min=1e-6)


def _fit_linear(adapter: LatentAdapter, y_hat: Tensor, target: Tensor, scale: Tensor) -> None:
    """Ridge regression of the stem's output on latents brought to one scale [B], into the 1x1 convolution."""
    x = (y_hat / scale[:, None, None, None]).transpose(0, 1).flatten(1).double()
    x = torch.cat([x, torch.ones_like(x[:1])])
    wanted = F.pixel_unshuffle(target, adapter.shuffle.upscale_factor).transpose(0, 1).flatten(1).double()
    noise = QUANTISATION * scale.double().square().reciprocal().mean() * x.shape[1]
    penalty = torch.full((len(x),), float(noise), dtype=x.dtype, device=x.device)
    penalty[-1] = 0
    solution = SIZE * torch.linalg.solve(x @ x.T + penalty.diag(), x @ wanted.T).T
    middle = scale.log().mean().exp()
    weight, bias = adapter.expand.parameters()
    weight.copy_(solution[:, :-1, None, None] / middle)
    bias.copy_(solution[:, -1])


def _pass_through(adapter: LatentAdapter) -> None:
    """Silences the attention and makes the MLP the identity: GELU(x) - GELU(-x) = x."""
    mlp = adapter.block.mlp
    dim = mlp.fc2.out_features
    identity = torch.eye(dim, device=mlp.fc1.weight.device)
    for layer in (adapter.block.attn.proj, mlp.fc2):
        layer.weight.zero_()
        layer.bias.zero_()
    mlp.fc1.weight[: 2 * dim] = torch.cat([identity, -identity])
    mlp.fc1.bias[: 2 * dim] = 0
    mlp.fc2.weight[:, : 2 * dim] = torch.cat([identity, -identity], 1)


def _fit_levels(adapter: LatentAdapter, y_hat: Tensor, target: Tensor, quality: Tensor) -> None:
    """Fits the norm before the MLP, channel by channel, and then the factor of each level."""
    x = adapter.shuffle(adapter.expand(y_hat)).permute(0, 2, 3, 1)
    missing = target.permute(0, 2, 3, 1) - x
    norm, gamma = adapter.block.norm2, adapter.block.gamma_2
    normal = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    over = (0, 1, 2)
    variance, covariance = normal.var(over, correction=0), (normal * missing).mean(over)
    slope = (covariance - normal.mean(over) * missing.mean(over)) / variance.clamp(min=1e-6)
    norm.weight.copy_(slope)
    norm.bias.copy_(missing.mean(over) - slope * normal.mean(over))
    given = norm(x)
    for level in range(1, len(gamma) + 1):
        a, b = given[quality == level], missing[quality == level]
        factor = (a * b).mean(over) / a.square().mean(over).clamp(min=1e-6)
        gamma[level - 1] = factor.clamp(min=LEAST_FACTOR)
