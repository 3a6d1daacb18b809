"""MS-SSIM and LPIPS, the image metrics that need PyTorch: for validation and for `polc-bench`."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from polc_runtime.errors import BackendUnavailable, CheckpointError
from polc_runtime.pictures.images import Pixels, to_tensor

from .perceptual import PerceptualLoss

MS_SSIM_MIN_SIDE = 161
"""Five scales with an 11x11 window need this many pixels on the shorter side."""


def ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """Multi-scale structural similarity, up to 1 (Wang et al. 2003, as pytorch-msssim computes it).

    Args:
        original: uint8 [H,W,3].
        decoded: uint8 [H,W,3].

    Raises:
        ValueError: the images are not uint8 [H,W,3] of one size, or a side is under 161 pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is compiled by torch.jit.script
        import pytorch_msssim

    _check_pair(original, decoded)
    height, width = original.shape[:2]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(
            f"MS-SSIM needs images of at least {MS_SSIM_MIN_SIDE} pixels on the shorter side; "
            f"this one is {width}x{height}"
        )
    first, second = (
        torch.from_numpy(image[None].transpose(0, 3, 1, 2).astype(np.float64))
        for image in (original, decoded)
    )
    return float(pytorch_msssim.ms_ssim(first, second, data_range=255))


def lpips_vgg(original: Pixels, decoded: Pixels, weights: str | Path | None = None) -> float:
    """LPIPS distance (Zhang et al. 2018, version 0.1) with VGG16's features; 0 for equal images.

    Args:
        original: uint8 [H,W,3].
        decoded: uint8 [H,W,3].
        weights: of VGG16; see `PerceptualLoss`.

    Raises:
        ValueError: the images are not uint8 [H,W,3] of one size.
        BackendUnavailable: the weights could not be loaded, so that no image can be measured.
    """
    _check_pair(original, decoded)
    try:
        perceptual = _perceptual(weights)
    except CheckpointError as error:
        raise BackendUnavailable(str(error)) from error
    with torch.no_grad():
        first, second = (torch.from_numpy(to_tensor(image)) for image in (decoded, original))
        return float(perceptual.distance(first, second))


@lru_cache(maxsize=1)
def _perceptual(weights: str | Path | None) -> PerceptualLoss:
    return PerceptualLoss(weights)


def _check_pair(original: Pixels, decoded: Pixels) -> None:
    for image in (original, decoded):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"an image is uint8 [H,W,3]; got {image.dtype} {list(image.shape)}")
    if original.shape != decoded.shape:
        raise ValueError(f"expected images of one size, got {list(original.shape)} and {list(decoded.shape)}")
