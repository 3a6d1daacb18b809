"""Photos without labels, the data of stage 1: every image below some folders, a patch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Generator, Tensor

from polc_runtime.datasets import image_files, split_folder
from polc_runtime.errors import DataError
from polc_runtime.limits import DEFAULT_LIMITS, Limits
from polc_runtime.pictures.images import read_image

from .augment import planes, random_crop, random_flip


class ImageFolder:
    """Photos below one or more folders, cut to random patches.

    A patch is mirrored at random, left to right and upside down, as the official stage 1 does. Smaller images
    are padded by reflection.
    Images are read as `polc_runtime.pictures.images.read_image` does: EXIF rotation, alpha on white,
    grey and 16 bit converted.

    Attributes:
        files: the image files, sorted within each folder.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path],
        patch: int,
        split: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Lists the files; none is read yet.

        Args:
            folders: one or more folders, searched with their sub-folders.
            patch: side of the square patches in pixels.
            split: take each folder's sub-folder of this split; see `split_folder`.
            limits: bounds on the size of an image.

        Raises:
            DataError: a folder does not exist or has no image.
            ValueError: `patch` is not positive.
        """
        if patch < 1:
            raise ValueError(f"expected patch >= 1, got {patch}")
        named = [folders] if isinstance(folders, str | Path) else list(folders)
        self.files = [file for folder in named for file in image_files(split_folder(Path(folder), split))]
        if not self.files:
            raise DataError("no folder of images was named")
        self.patch, self.limits = patch, limits

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, generator: Generator) -> tuple[Tensor]:
        """One patch, float32 [3,patch,patch] in 0..1, in a tuple.

        Raises:
            PolcError: the file cannot be read.
        """
        pixels = read_image(self.files[index], self.limits).pixels
        return (planes(random_flip(random_crop(pixels, self.patch, generator), generator, (1, 0))),)
