"""HiFiC's patch discriminator, one for each quality level, and the losses of the adversarial stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import spectral_norm

_FILTERS = (64, 128, 256, 512)
_CONTEXT = 12
_SLOPE = 0.2
_INIT_STD = 0.02


class Discriminators(nn.Module):
    """Tells originals from reconstructions, given the decoded latent; a network of its own for each level.

    Structure, initialisation and names of the weights are the official ones (after Mentzer et al. 2020): a
    3x3 convolution takes y_hat to 12 channels, which are upsampled 16 times and joined to the image; four
    4x4 convolutions of stride 2 under spectral normalisation; a 1x1 convolution to logits of 16x16 patches.
    Every convolution but the last pads by reflection and is followed by LeakyReLU(0.2). In training mode each
    pass makes one step of power iteration, for the levels that are in the batch; until a level has had one,
    its logits in evaluation mode mean nothing.
    """

    def __init__(self, latent_channels: int, levels: int) -> None:
        """Draws the weights from N(0, 0.02^2); biases are 0.

        Args:
            latent_channels: M.
            levels: how many networks, one for each quality level.
        """
        super().__init__()
        self.levels = levels
        widths = (3 + _CONTEXT, *_FILTERS)

        def each(*arguments: int, **options: int | str) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(*arguments, **options) for _ in range(levels))  # type: ignore[arg-type]

        self.context_conv = each(latent_channels, _CONTEXT, 3, padding=1, padding_mode="reflect")
        for number in range(1, 5):
            convs = each(*widths[number - 1 : number + 1], 4, stride=2, padding=1, padding_mode="reflect")
            self.add_module(f"conv{number}", convs)
        self.conv_out = each(_FILTERS[-1], 1, 1)
        self.apply(_initialise)
        for number in range(1, 5):
            for conv in self._convs(number):
                spectral_norm(conv)

    def forward(self, image: Tensor, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Logits of each 16x16 patch being an original's.

        Args:
            image: [B,3,H,W] in 0..1, H and W multiples of 16, at least 32.
            y_hat: decoded latent [B,M,H/16,W/16].
            quality: [B], whole numbers 1..levels; each sample goes to its level's network.

        Returns:
            Tensor [B,H/16 * W/16].

        Raises:
            ValueError: a quality is not a level.
        """
        levels = self._levels(quality)
        if len(set(levels)) == 1:
            return self._judge(image, y_hat, levels[0])
        order, parts = [], []
        for level in sorted(set(levels)):
            members = [index for index, each in enumerate(levels) if each == level]
            parts.append(self._judge(image[members], y_hat[members], level))
            order += members
        back = torch.tensor(order, device=image.device).argsort()
        return torch.cat(parts)[back]

    def discriminator_loss(self, image: Tensor, x_hat: Tensor, y_hat: Tensor, quality: Tensor) -> Tensor:
        """What the discriminators minimise, a scalar; no gradient reaches the codec.

        Args:
            image: originals [B,3,H,W] in 0..1.
            x_hat: reconstructions, likewise.
            y_hat: decoded latents [B,M,H/16,W/16].
            quality: [B], whole numbers 1..levels.
        """
        both = torch.cat([image, x_hat]).detach()
        logits = self(both, y_hat.detach().repeat(2, 1, 1, 1), quality.repeat(2))
        return judgement_loss(*logits.chunk(2))

    def generator_loss(self, x_hat: Tensor, y_hat: Tensor, quality: Tensor) -> Tensor:
        """What the codec minimises, a scalar; arguments as in `discriminator_loss`.

        Its gradient reaches `x_hat` alone: neither `y_hat`, the condition, nor the weights here.
        """
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return deception_loss(functional_call(self, fixed, (x_hat, y_hat.detach(), quality)))

    def _levels(self, quality: Tensor) -> list[int]:
        values = quality.tolist()
        if any(value not in range(1, self.levels + 1) for value in values):
            raise ValueError(f"expected whole qualities 1..{self.levels}, got {values}")
        return [int(value) - 1 for value in values]

    def _convs(self, number: int) -> nn.ModuleList:
        convs = getattr(self, f"conv{number}")
        assert isinstance(convs, nn.ModuleList)
        return convs

    def _judge(self, image: Tensor, y_hat: Tensor, level: int) -> Tensor:
        """Logits [B,H/16 * W/16] by the network number `level`, from 0."""
        context = F.leaky_relu(self.context_conv[level](y_hat), _SLOPE)
        x = torch.cat([image, F.interpolate(context, image.shape[2:], mode="nearest")], 1)
        for number in range(1, 5):
            x = F.leaky_relu(self._convs(number)[level](x), _SLOPE)
        return self.conv_out[level](x).flatten(1)


def judgement_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of calling originals' logits 1 and reconstructions' 0: the sum of both means."""
    bce = F.binary_cross_entropy_with_logits
    return bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))


def deception_loss(fake: Tensor) -> Tensor:
    """Cross-entropy of calling reconstructions' logits 1, mean."""
    return F.binary_cross_entropy_with_logits(fake, torch.ones_like(fake))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, _INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
