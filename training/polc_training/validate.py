"""Validation of a codec while it trains: every level, real bytes beside estimated bits, image quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polc.backends.evaluation import evaluating
from polc.backends.torch import TorchBackend
from polc.families.tinylic.codec import TinyLicCodec
from polc_runtime.bitstream.container import Header, quality_code
from polc_runtime.codec.latent import LatentCoder
from polc_runtime.metrics.distortion import PSNR, Metrics
from polc_runtime.pictures.images import Pixels, from_tensor, pad, to_tensor

from .rate_distortion import RateDistortion


@dataclass(frozen=True)
class Coded:
    """One image coded at one level.

    Attributes:
        y_hat: what the decoder has, float32 [1,M,h,w].
        level: its quality, float32 [1].
        bpp: bits per pixel of the file it would be, every byte of it.
        payload_bpp: of the entropy-coded streams alone.
        estimated_bpp: from the likelihoods.
    """

    y_hat: Tensor
    level: Tensor
    bpp: float
    payload_bpp: float
    estimated_bpp: float


RATES = ("bpp", "payload_bpp", "estimated_bpp")


class RealCoder:
    """Codes images for real with the PyTorch model: what its exported bundle would write.

    The model keeps its attention kernels and its mode: only while it codes is it in evaluation mode.
    """

    def __init__(self, codec: TinyLicCodec) -> None:
        self.codec = codec
        tables = codec.tables()
        self.coder = LatentCoder(TorchBackend(codec), tables, codec.plan)

    @torch.no_grad()
    def code(self, pixels: Pixels, quality: float) -> Coded:
        """Codes an image, uint8 [H,W,3]."""
        height, width = pixels.shape[:2]
        offered = self.codec.plan.quality.min, self.codec.plan.quality.max
        device = self.codec.gain.device
        level = torch.tensor([quality], device=device)
        image = torch.from_numpy(to_tensor(pad(pixels, self.codec.plan.pad))).to(device)
        with evaluating(self.codec):
            y, z = self.codec.analyse(image, level)
            _, *likelihoods = self.codec.estimate(y, z, level)
        coded = self.coder.encode(y[0].cpu().numpy(), z[0].cpu().numpy(), quality)
        header = Header(bytes(8), bytes(4), width, height, quality_code(quality, *offered))
        size = len(coded.container(header).pack())
        per_pixel = 8 / (height * width)
        return Coded(
            torch.from_numpy(coded.y_hat)[None].to(device),
            level,
            bpp=size * per_pixel,
            payload_bpp=(len(coded.z or b"") + sum(map(len, coded.y))) * per_pixel,
            estimated_bpp=float(sum(-p.double().log2().sum() for p in likelihoods)) / (height * width),
        )

    @torch.no_grad()
    def synthesise(self, coded: Coded, height: int, width: int) -> Pixels:
        """The reconstruction, uint8 [height,width,3]."""
        with evaluating(self.codec):
            image = self.codec.synthesise(coded.y_hat, coded.level).clamp(0, 1)
        return from_tensor(image.cpu().numpy(), height, width)


def validate_codec(
    codec: TinyLicCodec, images: Sequence[Pixels], metrics: Metrics
) -> tuple[list[dict[str, Any]], list[list[Pixels]]]:
    """Codes every image at every level.

    Args:
        codec: the model.
        images: uint8 [H,W,3] each.
        metrics: what to measure of the reconstructions.

    Returns:
        For each level its quality and the images' mean rates and metrics, by name; and the reconstructions by
        level, then image.
    """
    coder = RealCoder(codec)
    rows, decoded = [], []
    for quality in range(1, codec.config.levels + 1):
        coded = [coder.code(pixels, float(quality)) for pixels in images]
        made = [coder.synthesise(c, *x.shape[:2]) for x, c in zip(images, coded, strict=True)]
        measured = [metrics.measure(x, x_hat)[0] for x, x_hat in zip(images, made, strict=True)]
        found = {name: _mean([values[name] for values in measured]) for name in measured[-1]}
        rows.append({"quality": quality, **mean_rates(coded), **found})
        decoded.append(made)
    return rows, decoded


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over the images that a metric has a number for."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mean_rates(coded: Sequence[Coded]) -> dict[str, float]:
    """Means of the three rates over images."""
    return {rate: float(np.mean([getattr(c, rate) for c in coded])) for rate in RATES}


def validation_loss(rows: Sequence[Mapping[str, Any]], weights: RateDistortion) -> float:
    """The rate-distortion loss of the levels' means, without the perceptual part."""
    quality, bpp = (torch.tensor([float(row[name]) for row in rows]) for name in ("quality", "bpp"))
    mse = 4 * torch.tensor([10 ** (-(row[PSNR] or math.inf) / 10) for row in rows])
    return float(weights(quality, bpp, mse, None))
