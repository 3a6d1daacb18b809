"""Codecs that are measured alike: a bundle on a backend, and the baselines that Pillow carries."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image, features

from ...bitstream.container import QUALITY_UNIT, Container
from ...codec import Codec
from ...errors import ImageError, UsageError, first_line
from ...pictures.images import Pixels


class Coder(Protocol):
    """A codec under measurement: a bundle, a baseline, or one of your own.

    Attributes:
        name: what its results are called.
        description: how it was run, for people.
        qualities: measured unless others are asked for.
        quality_range: the smallest and the largest.
        steps: distinct qualities in one unit; others are rounded.
    """

    name: str
    description: str
    qualities: tuple[float, ...]
    quality_range: tuple[float, float]
    steps: int

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """The whole file of an image, uint8 [H,W,3]."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """The image of a file, uint8 [H,W,3]."""
        ...

    def about(self, data: bytes) -> dict[str, float]:
        """Further numbers of a file, such as `payload_bytes`, or an `estimated_bpp` where a codec has one."""
        ...

    def facts(self) -> dict[str, Any]:
        """What identifies it, as JSON-able data."""
        ...


class PolcCoder:
    """A bundle of this project on a backend."""

    steps = QUALITY_UNIT

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.name = codec.bundle.name
        self.quality_range = codec.bundle.manifest.quality_range
        low, high = math.ceil(self.quality_range[0]), math.floor(self.quality_range[1])
        self.qualities = tuple(float(level) for level in range(low, high + 1))
        self.description = f"polc bundle {self.name} on {codec.backend.name}"

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """The `.polc` file of an image."""
        return self.codec.compress(pixels, quality)

    def decode(self, data: bytes) -> Pixels:
        """The image of a `.polc` file."""
        return self.codec.decompress(data)

    def about(self, data: bytes) -> dict[str, float]:
        """Bytes of the coded symbols; and those of header, framing, checksums and CRC around them."""
        container = Container.unpack(data, self.codec.limits)
        payload = len(container.z or b"") + len(container.y)
        return {"payload_bytes": payload, "overhead_bytes": len(data) - payload}

    def facts(self) -> dict[str, Any]:
        """The bundle and what runs it."""
        return codec_facts(self.codec)


def codec_facts(codec: Codec) -> dict[str, Any]:
    """What identifies a bundle and what runs it, as JSON-able data."""
    manifest = codec.bundle.manifest
    return {
        "bundle": manifest.name,
        "fingerprint": manifest.fingerprint.hex(),
        "codec_id": manifest.codec_id.hex(),
        "notes": list(manifest.notes),
        "backend": codec.backend.describe(),
    }


class PillowFormat(NamedTuple):
    """A format that Pillow writes: its name, options besides the quality, and library (in `PIL.features`)."""

    description: str
    format: str
    options: dict[str, Any]
    library: str
    qualities: tuple[int, ...]


PILLOW = {
    "jpeg": PillowFormat(
        "JPEG 4:2:0, optimised Huffman tables, not progressive",
        "JPEG",
        {"subsampling": 2, "optimize": True, "progressive": False},
        "libjpeg_turbo",
        (1, 2, 3, 4, *range(5, 100, 5)),
    ),
    "webp": PillowFormat(
        "WebP, lossy, method 6", "WEBP", {"lossless": False, "method": 6}, "webp", (1, *range(5, 100, 5))
    ),
}
"""Baselines by name."""


class PillowCoder:
    """A format of `PILLOW`.

    Raises:
        UsageError: no codec has that name.
    """

    quality_range = (1.0, 100.0)
    steps = 1

    def __init__(self, name: str) -> None:
        if name not in PILLOW:
            raise UsageError(f"no codec is named {name!r}; there are {', '.join((POLC, *PILLOW))}")
        self.name = name
        self.format = PILLOW[name]
        self.qualities = tuple(float(quality) for quality in self.format.qualities)
        library = f"{self.format.library} {features.version(self.format.library) or 'of unknown version'}"
        self.description = f"{self.format.description}; Pillow {Image.__version__}, {library}"

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """The file of an image.

        Raises:
            ImageError: the format cannot hold the image.
        """
        stream = io.BytesIO()
        name, options = self.format.format, self.format.options
        try:
            Image.fromarray(pixels).save(stream, name, quality=round(quality), **options)
        except (OSError, ValueError) as error:
            raise ImageError(f"cannot be written as {name} ({first_line(error)})") from None
        return stream.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """The image of a file."""
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def about(self, data: bytes) -> dict[str, float]:
        """Nothing: the parts of the format are not known here."""
        return {}

    def facts(self) -> dict[str, Any]:
        """The format and its options."""
        return {"format": self.format.format, "options": dict(self.format.options)}


POLC = "polc"
"""What the command line calls a bundle."""


def as_coder(codec: Codec | Coder | str) -> Coder:
    """What is measured: a loaded codec, the name of a baseline (`jpeg`, `webp`), or any `Coder`.

    Raises:
        UsageError: no baseline has that name.
    """
    if isinstance(codec, Codec):
        return PolcCoder(codec)
    return PillowCoder(codec) if isinstance(codec, str) else codec


def resolve_qualities(coder: Coder, wanted: Sequence[float] | None) -> tuple[float, ...]:
    """The qualities to measure, increasing, rounded to the coder's steps.

    Raises:
        UsageError: one is out of range.
    """
    low, high = coder.quality_range
    chosen = coder.qualities if wanted is None else wanted
    for quality in chosen:
        if not low <= quality <= high:
            raise UsageError(f"{coder.name}: quality must lie between {low:g} and {high:g}, got {quality:g}")
    return tuple(sorted({round(quality * coder.steps) / coder.steps for quality in chosen}))
