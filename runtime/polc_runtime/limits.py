"""The bounds on untrusted files, all in one place.

They are checked before anything is allocated. A caller who knows its files better passes its own
`Limits`; the defaults admit every image that Pillow opens without complaint, and more. The constants
belong to the formats: no caller changes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from .errors import ImageError, ImageLimitError, UsageError

MAX_STREAMS = 16
"""rANS streams of one latent. Not a choice but part of the format: it settles where each symbol goes."""

MAX_SECTIONS = 1 << 16
"""Sections of a `.polc` file: empty ones are small, and reading them takes time all the same."""

MAX_THREADS = 1024
"""Threads that may be asked for: more would only be switched between."""

MAX_WIDTH = 1 << 16
"""Channels, axes and other sizes in a manifest."""
MAX_CLASSES = 1 << 16
"""Classes of a task."""
MAX_NAME = 500
"""Characters of a class's name."""
MAX_EXTRA = 64
"""Rows or columns that a segmentation has beyond the image."""
MAX_LAYERS = 64
"""Blocks of one stage in a checkpoint's dimensions."""
MAX_KERNEL = 255
"""Side of an attention window in a checkpoint's dimensions."""


@dataclass(frozen=True)
class Limits:
    """Bounds for coding and decoding alike.

    Attributes:
        max_pixels: width times height of the image, before padding.
        max_side: either side of the image, in pixels.
        max_bytes: size of a whole `.polc` file.
        max_image_bytes: size of a file with an image to compress.
        max_manifest_bytes: size of a bundle's manifest.
        max_graph_bytes: size of one graph's file.
        max_table_bytes: size of one entropy-table array of a bundle, and of their file.
    """

    max_pixels: int = 2**28
    max_side: int = 65535
    max_bytes: int = 2**30
    max_image_bytes: int = 2**32
    max_manifest_bytes: int = 2**22
    max_graph_bytes: int = 2**32
    max_table_bytes: int = 2**24

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Limits:
        """The limits that command lines run with: `$POLC_MAX_PIXELS` for `max_pixels`, and so on, where set.

        Raises:
            UsageError: such a variable is not a positive whole number.
        """
        names = {field.name: variable(field.name) for field in fields(cls)}
        given = {name: key for name, key in names.items() if environment.get(key)}
        return cls(**{name: whole_number(key, environment[key]) for name, key in given.items()})

    def check_image(self, width: int, height: int) -> None:
        """Checks the size of an image, in pixels.

        Raises:
            ImageLimitError: it is above a limit.
            ImageError: it has no pixels.
        """
        if problem := self.size_problem(width, height):
            raise (ImageError if width < 1 or height < 1 else ImageLimitError)(problem)

    def size_problem(self, width: int, height: int) -> str | None:
        """Says in one line why an image of this size is refused, or None if it is fine."""
        if width < 1 or height < 1:
            return f"an image of {width}x{height} has no pixels"
        if max(width, height) > self.max_side:
            return (
                f"an image of {width}x{height} is too large: a side may have {self.max_side} pixels "
                f"({override_hint('max_side')})"
            )
        if width * height > self.max_pixels:
            return (
                f"an image of {width}x{height} has too many pixels: "
                f"{width * height}, the limit is {self.max_pixels} ({override_hint('max_pixels')})"
            )
        return None

    def bytes_problem(self, name: str, size: int) -> str | None:
        """Says in one line why a file of this size is refused, or None if it is fine.

        Args:
            name: of the limit.
            size: in bytes, found or announced.
        """
        most = getattr(self, name)
        return None if size <= most else f"has {size} bytes, the limit is {most} ({override_hint(name)})"


DEFAULT_LIMITS = Limits()


def variable(name: str) -> str:
    """The environment variable of a limit."""
    return f"POLC_{name.upper()}"


def override_hint(name: str) -> str:
    """How to raise a limit, for a message."""
    return f"raise it by ${variable(name)} or Limits({name}=...)"


def whole_number(key: str, text: str) -> int:
    """The number in an environment variable.

    Raises:
        UsageError: it is not a positive whole number.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) > 0):
        raise UsageError(f"{key} is {text!r}, expected a positive whole number")
    return int(text)
