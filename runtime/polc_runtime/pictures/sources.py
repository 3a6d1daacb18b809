"""Images as callers have them: arrays, files, bytes, Pillow images."""

from __future__ import annotations

import numpy as np

from ..limits import DEFAULT_LIMITS, Limits
from .images import ImageFileSource, Pixels, read_image

ImageSource = Pixels | ImageFileSource
"""RGB pixels (uint8 [H,W,3]), or what `read_image` reads: the path of a file, its bytes, a Pillow image."""


def pixels_of(source: ImageSource, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """The RGB pixels of an image, uint8 [H,W,3]; an array is returned as it is, unchecked.

    Args:
        source: the image.
        limits: bounds on its size.

    Raises:
        PolcError: as `read_image`.
    """
    return source if isinstance(source, np.ndarray) else read_image(source, limits).pixels
