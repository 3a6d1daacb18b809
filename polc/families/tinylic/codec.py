"""The TinyLIC and POLC codec: transforms, gains, entropy models, and the evaluation and training paths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from polc_runtime.bitstream.schedule import Step
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.bundle.plan import nine_step_plan

from ...entropy import FactorizedPrior, gaussian_conditional, round_straight_through
from ...graphs import GraphSpec
from ...model import FIXED_QUALITY, CodecModel
from ...tables import make_tables
from .context import ContextModel, gather, scatter
from .graphs import codec_graphs
from .keymap import official_masks, to_official
from .levels import interpolate_levels
from .presets import ModelConfig
from .transforms import make_transforms


@dataclass(frozen=True)
class CodecOutput:
    """What one pass through the codec gives.

    Attributes:
        x_hat: reconstruction [B,3,H,W], not clamped; None where it was not asked for.
        y_hat: decoded latent [B,M,H/16,W/16].
        y_likelihoods: likelihoods of the latent's elements, [B,M,H/16,W/16].
        z_likelihoods: likelihoods of the hyper-latent's elements, [B,N',H/64,W/64].
    """

    x_hat: Tensor | None
    y_hat: Tensor
    y_likelihoods: Tensor
    z_likelihoods: Tensor

    def bits(self) -> Tensor:
        """Estimated bits of each sample [B]: the negative base-2 logarithm of every likelihood, summed."""
        both = (self.y_likelihoods, self.z_likelihoods)
        return torch.stack([-p.log2().flatten(1).sum(1) for p in both]).sum(0)


class TinyLicCodec(CodecModel):
    """Learned image codec with neighbourhood attention and a nine-step context model: TinyLIC, POLC.

    Every method takes a `quality` tensor, float32 [B], 1..levels, real-valued; a batch may mix qualities. A
    model without levels has one rate, and ignores it. Images are [B,3,H,W] in 0..1 with H and W multiples of
    64.
    """

    family = "tinylic"
    decoding = ("InverseHyperGain", "h_s", "sc_transform_", "cc_transforms.", "entropy_parameters_")
    config: ModelConfig
    gain: nn.Parameter
    inverse_gain: nn.Parameter
    hyper_gain: nn.Parameter
    inverse_hyper_gain: nn.Parameter

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        qualities = (1.0, float(config.levels)) if config.levels else (FIXED_QUALITY, FIXED_QUALITY)
        self.plan = nine_step_plan(config.to_dict(), qualities)
        self.g_a, self.h_a, self.h_s, self.g_s = make_transforms(config)
        if config.levels:
            latent, hyper = (config.levels, config.latent_channels), (config.levels, config.hyper_dim)
            self.gain = nn.Parameter(torch.ones(latent))
            self.inverse_gain = nn.Parameter(torch.ones(latent))
            self.hyper_gain = nn.Parameter(torch.ones(hyper))
            self.inverse_hyper_gain = nn.Parameter(torch.ones(hyper))
        self.context = ContextModel(config)
        self.prior = FactorizedPrior(config.hyper_dim)
        self.gaussian = gaussian_conditional()

    def graphs(self) -> dict[str, GraphSpec]:
        """See `CodecModel.graphs`."""
        return codec_graphs(self)

    def tables(self) -> EntropyTables:
        """Coding tables, made in float64: the same on every machine."""
        return make_tables(self.prior.arrays())

    def official_weights(self) -> dict[str, Tensor]:
        """See `CodecModel.official_weights`."""
        return to_official(dict(self.named_parameters()))

    def official_constants(self) -> dict[str, Tensor]:
        """The 0/1 masks of the spatial context."""
        return official_masks(self.context)

    def _scaled(self, x: Tensor, table: str, quality: Tensor) -> Tensor:
        """`x` [B,C,h,w] times the factors of the named level table; as it is for a model of one rate."""
        if not self.config.levels:
            return x
        return x * interpolate_levels(getattr(self, table), quality)[:, :, None, None]

    def analyse(self, image: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Latent y [B,M,H/16,W/16] and hyper-latent z [B,N',H/64,W/64] of an image."""
        y = self._scaled(self.g_a(image, quality), "gain", quality)
        return y, self.hyper_analyse(y, quality)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        """Hyper-latent z [B,N',H/64,W/64] of a latent."""
        return self._scaled(self.h_a(y, quality), "hyper_gain", quality)

    def hyper_synthesise(self, z_hat: Tensor, quality: Tensor) -> Tensor:
        """`params` [B,2M,H/16,W/16] of a decoded hyper-latent."""
        return self.h_s(self._scaled(z_hat, "inverse_hyper_gain", quality), quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Image [B,3,H,W] of a decoded latent, not clamped."""
        return self.g_s(self._scaled(y_hat, "inverse_gain", quality), quality)

    def forward(self, image: Tensor, quality: Tensor, reconstruct: bool = True) -> CodecOutput:
        """Codes an image without writing bits.

        In training mode the rates see additive uniform noise, context and synthesis straight-through
        rounding; in evaluation mode both see the rounded values, as the coder does.

        Args:
            image: [B,3,H,W] in 0..1, H and W multiples of 64.
            quality: float32 [B].
            reconstruct: whether to run the synthesis.
        """
        y, z = (latent.float() for latent in self.analyse(image, quality))
        y_hat, y_likelihoods, z_likelihoods = self.estimate(y, z, quality)
        x_hat = self.synthesise(y_hat, quality) if reconstruct else None
        return CodecOutput(x_hat, y_hat, y_likelihoods, z_likelihoods)

    def estimate(self, y: Tensor, z: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantises a latent and estimates its rate; noise and rounding as in `forward`.

        Args:
            y: latent [B,M,h,w].
            z: hyper-latent [B,N',h/4,w/4].
            quality: float32 [B].

        Returns:
            y_hat, and the likelihoods of the elements of y and of z, shaped like these; in float32 whatever
            precision the networks run in.
        """
        _, z_likelihoods = self.prior(z)
        params = self.hyper_synthesise(self.prior.quantize_hyper(z)[1], quality)
        likelihoods = torch.zeros_like(y)

        def code(step: Step, scales: Tensor, means: Tensor) -> Tensor:
            nonlocal likelihoods
            values, means = gather(y, step), means.float()
            _, step_likelihoods = self.gaussian(values, scales.float(), means)
            likelihoods = scatter(likelihoods, step, step_likelihoods)
            return round_straight_through(values - means) + means

        y_hat = self.context(params, code, y)
        return y_hat, likelihoods, z_likelihoods
