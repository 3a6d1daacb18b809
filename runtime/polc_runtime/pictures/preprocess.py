"""What a task asks to be done to images: resizing and cropping before they are coded, normalising after."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..backends import FloatArray
from ..bundle import Preprocessing
from ..errors import ImageError
from ..limits import DEFAULT_LIMITS, Limits
from .images import Pixels, to_tensor


def preprocess(pixels: Pixels, steps: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """Scales the shorter side to `steps.resize`, up or down, then cuts the central square of `steps.crop`.

    As torchvision's Resize and CenterCrop on a Pillow image, but that nothing is padded: of an image smaller
    than the crop, the smaller side is kept whole.

    Args:
        pixels: uint8 [H,W,3], RGB.
        steps: what to do.
        limits: largest image made on the way.

    Returns:
        uint8 [H',W',3].

    Raises:
        ImageLimitError: the scaled image would be larger than the limits: it is very long and thin.
    """
    if steps.resize is not None:
        pixels = _resized(pixels, steps.resize, steps.interpolation, limits)
    if steps.crop is None:
        return pixels
    height, width = (min(steps.crop, side) for side in pixels.shape[:2])
    top, left = (round((have - side) / 2) for have, side in zip(pixels.shape, (height, width), strict=False))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def normalise(pixels: Pixels, steps: Preprocessing) -> FloatArray:
    """uint8 [H,W,3] -> float32 [1,3,H,W]: to 0..1, minus `steps.mean`, over `steps.std`."""
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (steps.mean, steps.std))
    return (to_tensor(pixels) - mean) / std


def _resized(pixels: Pixels, shorter: int, interpolation: str, limits: Limits) -> Pixels:
    height, width = pixels.shape[:2]
    least = min(height, width)
    size = (shorter * width // least, shorter * height // least)
    if size == (width, height):
        return pixels
    try:
        limits.check_image(*size)
    except ImageError as error:
        raise type(error)(f"with its shorter side scaled to {shorter}: {error}") from None
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling[interpolation.upper()]))
