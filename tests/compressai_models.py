"""Models of CompressAI with random weights that give plausible symbols, and their checkpoints' layouts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polc.families.compressai.architectures import ARCHITECTURES

ZOO = {quality: (128, 192) if quality <= 4 else (192, 320) for quality in range(1, 9)}
"""N and M of mbt2018-mean at each quality of compressai's zoo."""


def random_model(name: str, n: int, m: int, seed: int = 0) -> Any:
    """One of compressai's own models, in evaluation mode, with its tables made.

    torch's initial weights make latents so small that every symbol is 0. Here the last layer of each
    transform is scaled so that, for an image of noise, y has the standard deviation 3, z has 2, scales and
    means have 1, and the image 0.25 around 0.5; the scales are then spread over 0.1 to 8 by their biases. The
    prior's medians are not 0.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model: Any = ARCHITECTURES[name].network(n, m)
    with torch.no_grad():
        for layer in model.modules():
            if hasattr(layer, "gamma_reparam"):  # else normalisation would not mix channels
                layer.gamma.copy_((layer.gamma**2 + 2e-4 * torch.rand(n, n, generator=generator)).sqrt())
        image = torch.rand(1, 3, 128, 192, generator=generator)
        y = scale_last(model.g_a, image, 3.0)
        bottleneck = model.entropy_bottleneck
        bottleneck.quantiles += 0.6 * torch.rand(len(bottleneck.quantiles), 1, 1, generator=generator) - 0.3
        if hasattr(model, "h_a"):
            z = scale_last(model.h_a, y.abs() if ARCHITECTURES[name].magnitude else y, 2.0)
            scale_last(model.h_s, z, 1.0)
            last = [layer for layer in model.h_s if isinstance(layer, nn.Conv2d)][-1]
            last.bias[:m] = torch.exp(torch.empty(m).uniform_(-2.3, 2.0, generator=generator))
        scale_last(model.g_s, y, 0.25)
        model.g_s[-1].bias += 0.5
    model.eval()
    model.update(force=True)
    return model


def scale_last(transform: nn.Sequential, x: Tensor, deviation: float) -> Tensor:
    """Scales the last convolution so that the output for `x` has a standard deviation; that output."""
    last = [layer for layer in transform if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)][-1]
    factor = deviation / float(transform(x).std())
    last.weight *= factor
    last.bias *= factor
    return transform(x)
