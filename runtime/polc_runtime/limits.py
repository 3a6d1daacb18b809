"""What an image or a `.polc` file may be at most: every bound on untrusted sizes, in one place.

They are checked before anything is allocated. A caller who knows its files better passes its own
`Limits`; the defaults admit every image that Pillow opens without complaint, and more.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_STREAMS = 16
"""rANS streams of one latent. Not a choice but part of the format: it settles where each symbol goes."""


@dataclass(frozen=True)
class Limits:
    """Bounds for coding and decoding alike.

    Attributes:
        max_pixels: width times height of the image, before padding.
        max_side: either side of the image, in pixels.
        max_bytes: size of a whole `.polc` file.
        max_table_bytes: size of one entropy-table array of a bundle.
    """

    max_pixels: int = 2**28
    max_side: int = 65535
    max_bytes: int = 2**30
    max_table_bytes: int = 2**26

    def size_problem(self, width: int, height: int) -> str | None:
        """Say in one line why an image of this size is refused, or None if it is fine."""
        if width < 1 or height < 1:
            return f"an image of {width}x{height} has no pixels"
        if max(width, height) > self.max_side:
            return f"an image of {width}x{height} is too large: a side may have {self.max_side} pixels"
        if width * height > self.max_pixels:
            return (
                f"an image of {width}x{height} has too many pixels: "
                f"{width * height}, the limit is {self.max_pixels}"
            )
        return None


DEFAULT_LIMITS = Limits()
