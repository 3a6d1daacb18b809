"""Images as callers have them: arrays, files, bytes, Pillow images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UsageError
from ..limits import DEFAULT_LIMITS, Limits
from .images import Pixels, from_pillow, read_image

ImageSource = Pixels | str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image
"""RGB pixels (uint8 [H,W,3]), the path of an image file, the bytes of one, or a Pillow image."""


def pixels_of(source: ImageSource, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """The RGB pixels of an image, uint8 [H,W,3]; an array is given back as it is.

    Args:
        source: the image.
        limits: bounds on its size.

    Raises:
        ImageError: it cannot be read as an image.
        LimitError: it is larger than the limits.
        UsageError: it is none of these types.
    """
    if isinstance(source, np.ndarray):
        return source
    if isinstance(source, Image.Image):
        return from_pillow(source, limits).pixels
    if isinstance(source, bytes | bytearray | memoryview):
        return read_image(bytes(source), limits).pixels
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source), limits).pixels
    raise UsageError(
        "an image must be an array, a path, the bytes of an image file or a Pillow image; "
        f"got {type(source).__name__}"
    )
