"""Many images to work on one by one: which they are, what they are called, and which were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..files.inputs import Source, check_names, expand, explain
from ..limits import DEFAULT_LIMITS, Limits
from .images import INPUT_SUFFIXES, Pixels, ReadImage, read_image

ImageLike = str | Path | Pixels
"""An image file, `-` for standard input, a folder of image files, or uint8 [H,W,3]."""


@dataclass(frozen=True, eq=False)
class ImageItem:
    """An image that is read when its turn comes.

    Attributes:
        name: what results call it: its place below the folder that was named, or the file's name.
        source: the file, or uint8 [H,W,3].
    """

    name: str
    source: Source | Pixels

    @property
    def where(self) -> str:
        """What messages call it."""
        return self.source.name if isinstance(self.source, Source) else self.name

    def read(self, limits: Limits = DEFAULT_LIMITS) -> ReadImage:
        """Its pixels, uint8 [H,W,3], and what had to be changed to get them.

        Raises:
            PolcError: it cannot be read, or is larger than the limits.
        """
        if isinstance(self.source, Source):
            return read_image(self.source.read(limits), limits, self.where)
        return ReadImage(self.source, ())


@dataclass(frozen=True)
class LeftOut:
    """An image that was left out of a measurement.

    Attributes:
        image: what messages call it.
        error: the reason.
        codec: the only codec that could not take it; None where nobody could.
    """

    image: str
    error: str
    codec: str | None = None

    @classmethod
    def of(cls, item: ImageItem, error: Exception, codec: str | None = None) -> LeftOut:
        """The image that raised one of `errors.FAILURES`."""
        message = str(explain(error) if isinstance(error, OSError) else error) or "not enough memory"
        return cls(item.where, message.removeprefix(f"{item.where}: "), codec)

    def __str__(self) -> str:
        """The image, the reason, and the codec."""
        return f"{self.image}: {self.error}{f' ({self.codec})' if self.codec else ''}"

    def to_dict(self) -> dict[str, str]:
        """As JSON-able data."""
        return {name: value for name, value in vars(self).items() if value is not None}


class NothingMeasured(DataError):
    """No image at all could be measured.

    Args:
        left_out: every image, with the reason.
    """

    def __init__(self, left_out: Sequence[LeftOut]) -> None:
        first = f", such as {left_out[0].image}: {left_out[0].error}" if left_out else ""
        super().__init__(f"no image could be measured{first}")
        self.left_out = tuple(left_out)


def find_images(images: ImageLike | Sequence[ImageLike], recursive: bool = False) -> list[ImageItem]:
    """The images that are named, in order, each once; no file is read yet.

    Args:
        images: one or more.
        recursive: search the sub-folders of folders too.

    Raises:
        UsageError: a folder without images.
        PolcError: a folder cannot be read.
    """
    several = [images] if isinstance(images, str | Path | np.ndarray) else list(images)
    check_names([str(image) for image in several if not isinstance(image, np.ndarray)])
    found: dict[Path | int | None, Source | Pixels] = {}
    for image in several:
        if isinstance(image, np.ndarray):
            found[id(image)] = image
        else:
            sources = expand([str(image)], INPUT_SUFFIXES, recursive)
            found |= {source.path and source.path.resolve(): source for source in sources}
    return name_images(found.values())


def name_images(sources: Collection[Source | Pixels]) -> list[ImageItem]:
    """Images by name: files by their place below the named folder, or by their path if two share one."""
    short = [_short_name(source, index) for index, source in enumerate(sources)]
    counts = Counter(short)
    return [
        ImageItem(source.name if counts[name] > 1 and isinstance(source, Source) else name, source)
        for name, source in zip(short, sources, strict=True)
    ]


def _short_name(source: Source | Pixels, index: int) -> str:
    if not isinstance(source, Source):
        return f"image {index}"
    return source.name if source.path is None else source.place.as_posix()
