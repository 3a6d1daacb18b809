"""`Codec`: images to bytes, bytes to images and predictions."""

from .codec import CONTAINER, PIXELS, Codec

__all__ = ["CONTAINER", "PIXELS", "Codec"]
