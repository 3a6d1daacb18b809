"""Stage 1 with an adversary: codec and discriminators take alternate batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from polc.families.tinylic.codec import TinyLicCodec

from ..discriminator import Discriminators
from ..levels import draw_levels
from ..rate_distortion import RateDistortion
from .base import Batch, Group, Losses, Objective
from .stage1 import CodecStage, LearningRates

ADVERSARIAL_WEIGHT = 0.8
"""Weight of the generator's loss (POLC, ICME 2025)."""


class AdversarialStage(CodecStage):
    """Trains codec and discriminators in turn: the codec on even steps, the discriminators on odd ones.

    Args:
        codec: the model.
        discriminators: one a level.
        weights: of the rate-distortion loss.
        perceptual: images and reconstructions [B,3,H,W] -> distance [B]; None for none.
        rates: learning rates of the codec.
        discriminator_rate: learning rate of the discriminators.
        clip: largest norm of the codec's gradient.
        stratified: as in `CodecStage`.
        adversarial: weight of the generator's loss.
    """

    def __init__(
        self,
        codec: TinyLicCodec,
        discriminators: Discriminators,
        weights: RateDistortion,
        perceptual: nn.Module | None = None,
        rates: LearningRates | None = None,
        discriminator_rate: float = 1e-4,
        clip: float | None = 1.0,
        stratified: bool = False,
        adversarial: float = ADVERSARIAL_WEIGHT,
    ) -> None:
        super().__init__(codec, weights, perceptual, rates, clip, stratified)
        self.discriminators, self.adversarial = discriminators, adversarial
        groups = [Group(list(discriminators.parameters()))]
        self.objectives["discriminator"] = Objective(groups, discriminator_rate)

    def turn(self, step: int) -> Sequence[str]:
        """The codec's objectives on even steps, the discriminators' on odd ones."""
        return ("discriminator",) if step % 2 else ("codec", "auxiliary")

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The loss of "codec", "auxiliary" or "discriminator"."""
        if objective == "auxiliary":
            return super().forward(objective, batch)
        image = batch[0]
        quality = draw_levels(len(image), self.codec.config.levels, self.stratified).to(image.device)
        if objective == "discriminator":
            with torch.no_grad():
                output = self.codec(image, quality)
            assert output.x_hat is not None
            return {
                "loss": self.discriminators.discriminator_loss(image, output.x_hat, output.y_hat, quality)
            }
        losses, output = self.losses(image, quality)
        assert output.x_hat is not None
        generator = self.discriminators.generator_loss(output.x_hat, output.y_hat, quality)
        total = losses["loss"] + self.adversarial * generator
        return losses | {"loss": total, "generator": generator.detach()}
