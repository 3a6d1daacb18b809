"""Stage 1: the codec, trained for rate against distortion over all quality levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from polc.families.tinylic.codec import CodecOutput, TinyLicCodec

from ..levels import draw_levels
from ..rate_distortion import RateDistortion, bits_per_pixel, level_psnr, mean_squared_error
from .base import Batch, Group, Losses, Objective, Stage

ENTROPY_PARTS = ("h_a.", "h_s.", "context.")
PRIOR = "prior."
QUANTILES = "prior.quantiles"


@dataclass(frozen=True)
class LearningRates:
    """Learning rates of the codec.

    Attributes:
        codec: of the transforms.
        auxiliary: of the factorised prior's quantiles.
        entropy_scale: factor on `codec` for h_a, h_s and the context model.
        prior_scale: factor on `codec` for the factorised prior.
    """

    codec: float = 1e-4
    auxiliary: float = 1e-3
    entropy_scale: float = 1.0
    prior_scale: float = 1.0


def codec_objectives(codec: TinyLicCodec, rates: LearningRates, clip: float | None) -> dict[str, Objective]:
    """The codec's own loss and the auxiliary loss of its factorised prior."""
    parts: dict[str, list[nn.Parameter]] = {"transforms": [], "entropy": [], "prior": [], "quantiles": []}
    for name, parameter in codec.named_parameters():
        if name == QUANTILES:
            parts["quantiles"].append(parameter)
        elif name.startswith(PRIOR):
            parts["prior"].append(parameter)
        else:
            parts["entropy" if name.startswith(ENTROPY_PARTS) else "transforms"].append(parameter)
    groups = (
        Group(parts["transforms"]),
        Group(parts["entropy"], rates.entropy_scale),
        Group(parts["prior"], rates.prior_scale),
    )
    return {
        "codec": Objective(groups, rates.codec, clip),
        "auxiliary": Objective([Group(parts["quantiles"])], rates.auxiliary, scheduled=False),
    }


class CodecStage(Stage):
    """Trains the codec on images [B,3,H,W] in 0..1, H and W multiples of 64.

    Args:
        codec: the model.
        weights: of the loss.
        perceptual: images and reconstructions [B,3,H,W] -> distance [B]; None for none.
        rates: learning rates.
        clip: largest norm of the codec's gradient.
        stratified: whether a batch mixes levels, spread evenly; otherwise one level is drawn a step.
    """

    def __init__(
        self,
        codec: TinyLicCodec,
        weights: RateDistortion,
        perceptual: nn.Module | None = None,
        rates: LearningRates | None = None,
        clip: float | None = 1.0,
        stratified: bool = False,
    ) -> None:
        super().__init__()
        self.codec, self.weights, self.perceptual = codec, weights, perceptual
        self.stratified = stratified
        self.objectives = codec_objectives(codec, rates or LearningRates(), clip)

    def learners(self) -> nn.Module:
        """The codec."""
        return self.codec

    def frozen(self) -> Sequence[nn.Module]:
        """The perceptual distance."""
        return () if self.perceptual is None else (self.perceptual,)

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The loss of "codec" or of "auxiliary"."""
        if objective == "auxiliary":
            return {"loss": self.codec.prior.loss()}
        image = batch[0]
        quality = draw_levels(len(image), self.codec.config.levels, self.stratified).to(image.device)
        return self.losses(image, quality)[0]

    def losses(self, image: Tensor, quality: Tensor) -> tuple[Losses, CodecOutput]:
        """The rate-distortion loss and its parts, and what the codec gave."""
        output = self.codec(image, quality)
        bpp = bits_per_pixel(output.bits(), image)
        mse = mean_squared_error(image, output.x_hat)
        distance = None if self.perceptual is None else self.perceptual(image, output.x_hat)
        found = {"loss": self.weights(quality, bpp, mse, distance), "bpp": bpp.detach().mean()}
        found |= {"mse": mse.detach().mean(), "psnr": level_psnr(mse.detach()).mean()}
        if distance is not None:
            found["lpips"] = distance.detach().mean()
        return found, output
