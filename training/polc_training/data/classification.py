"""Images sorted into classes, the data of stage 2 classification: a folder, or a zip, of a folder a class."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from polc_runtime.bundle import Preprocessing
from polc_runtime.datasets import SPLITS, image_files, split_folder
from polc_runtime.errors import DataError, first_line
from polc_runtime.files.inputs import explain
from polc_runtime.limits import DEFAULT_LIMITS, Limits
from polc_runtime.pictures.images import INPUT_SUFFIXES, Pixels, read_image
from polc_runtime.pictures.preprocess import preprocess

from .augment import draw_chance, draw_integer, drawing_from, planes, random_flip

Transform = Callable[[Pixels, Generator], Pixels]
"""uint8 [h,w,3] and the source of all randomness -> uint8 [H,W,3], of one size for all images."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """Training on photos: a random part, scaled to a square bilinearly or bicubically, and a random flip.

    The official stage 2 does this, with timm's and torchvision's usual bounds.

    Attributes:
        size: side of the result.
        scale: bounds of the part's area, over the image's.
        ratio: bounds of its width over its height.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, pixels: Pixels, generator: Generator) -> Pixels:
        """uint8 [h,w,3] -> uint8 [size,size,3]."""
        from torchvision.transforms import v2

        bicubic = draw_chance(generator)
        mode = v2.InterpolationMode.BICUBIC if bicubic else v2.InterpolationMode.BILINEAR
        crop = v2.RandomResizedCrop(self.size, self.scale, self.ratio, mode)
        with drawing_from(generator):
            cut = crop(Image.fromarray(pixels))
        return random_flip(np.asarray(cut), generator)


@dataclass(frozen=True)
class PaddedCrop:
    """Training on thumbnails: moved by a few pixels, mirrored at random, then scaled up to a square.

    Attributes:
        size: side of the result; the shorter side is scaled to it bicubically and the centre cut.
        padding: most pixels, of the image as it is stored, that it moves by; what comes in is reflected.
    """

    size: int
    padding: int = 4

    def __call__(self, pixels: Pixels, generator: Generator) -> Pixels:
        """uint8 [h,w,3] -> uint8 [size,size,3]."""
        height, width = pixels.shape[:2]
        margin = self.padding
        padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
        top, left = (draw_integer(generator, 2 * margin + 1) for _ in range(2))
        moved = random_flip(padded[top : top + height, left : left + width], generator)
        return preprocess(np.ascontiguousarray(moved), Preprocessing(resize=self.size, crop=self.size))


@dataclass(frozen=True)
class CentralCrop:
    """Evaluation: scaled and cut as the task's preprocessing says, exactly as `polc compress --for-task`."""

    steps: Preprocessing

    def __call__(self, pixels: Pixels, generator: Generator) -> Pixels:
        """uint8 [h,w,3] -> uint8 [H,W,3]; nothing is random."""
        return preprocess(pixels, self.steps)


class LabelledImages:
    """Images and the numbers of their classes.

    Attributes:
        classes: names of the classes, sorted; a label is a position here.
        labels: label of each image.
    """

    def __init__(
        self,
        source: str | Path,
        transform: Transform,
        split: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Lists the images; none is read yet.

        Args:
            source: a folder, or a `.zip` file, which is read in place. In it lie, in one more folder or none,
                folders `train`, `val` or `test`, or none of them, and in these a folder for each class.
            transform: what to make of each image.
            split: which of `train`, `val` and `test` to take; see `split_folder`.
            limits: bounds on an image's size.

        Raises:
            DataError: there is no such folder or file, no such split, or no image in a class's folder.
            PolcError: a folder cannot be read.
        """
        path = Path(source)
        self._store: _Store = _Zip(path, split) if path.suffix.lower() == ".zip" else _Folder(path, split)
        self.transform, self.limits = transform, limits
        self._names = [name for name in self._store.names if len(name.parts) > 1]
        if not self._names:
            raise DataError(f"{path}: expected a folder of images for each class, found none")
        self.classes = tuple(sorted({name.parts[0] for name in self._names}))
        number = {name: index for index, name in enumerate(self.classes)}
        self.labels = [number[name.parts[0]] for name in self._names]

    def __len__(self) -> int:
        return len(self._names)

    def sample(self, index: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """An image, float32 [3,H,W] in 0..1, and its label, int64 [].

        Raises:
            PolcError: the image cannot be read.
        """
        pixels = self._store.read(self._names[index], self.limits)
        return planes(self.transform(pixels, generator)), torch.tensor(self.labels[index])


class _Store(Protocol):
    """Where images lie."""

    @property
    def names(self) -> Sequence[PurePath]:
        """Sorted, relative to the folder that holds the classes' folders."""
        ...

    def read(self, name: PurePath, limits: Limits) -> Pixels: ...


class _Folder:
    def __init__(self, path: Path, split: str | None) -> None:
        self.root = split_folder(path, split)
        self.names: Sequence[PurePath] = [file.relative_to(self.root) for file in image_files(self.root)]

    def read(self, name: PurePath, limits: Limits) -> Pixels:
        return read_image(self.root / name, limits).pixels


class _Zip:
    """Images inside a zip file; every process has its own handle."""

    def __init__(self, path: Path, split: str | None) -> None:
        self.path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None
        self._entries = {
            name: text for text in self._open().namelist() if _is_image(name := PurePosixPath(text))
        }
        self.root, names = _in_split(*_below_leading(sorted(self._entries)), split, path)
        self.names: Sequence[PurePath] = names

    def read(self, name: PurePath, limits: Limits) -> Pixels:
        shown = f"{self.path}: {self.root / name}"
        try:
            archive = self._open()
            entry = archive.getinfo(self._entries[self.root / name])
            if entry.file_size > limits.max_bytes:
                raise DataError(f"{shown}: is larger than the limit of {limits.max_bytes} bytes")
            data = archive.read(entry)
        except (
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
            RuntimeError,
            EOFError,
            OSError,
        ) as error:
            raise DataError(f"{shown}: cannot be unpacked ({first_line(error)})") from error
        return read_image(data, limits, shown).pixels

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handle": None}

    def _open(self) -> zipfile.ZipFile:
        """This process's handle: two processes that share one move each other's place in the file."""
        if self._handle is None or self._handle[0] != os.getpid():
            try:
                self._handle = os.getpid(), zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise DataError(f"{self.path}: is no zip file, or a damaged one") from error
            except OSError as error:
                raise explain(error, str(self.path)) from error
        return self._handle[1]


def _is_image(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    return name.suffix.lower() in INPUT_SUFFIXES and not hidden


def _below_leading(names: list[PurePosixPath]) -> tuple[PurePosixPath, list[PurePosixPath]]:
    """The folder that all names lie in, if it holds only folders, and the names below it."""
    top = {name.parts[0] for name in names}
    if len(top) != 1 or min(len(name.parts) for name in names) < 3:
        return PurePosixPath(), names
    root = PurePosixPath(*top)
    return root, [name.relative_to(root) for name in names]


def _in_split(
    root: PurePosixPath, names: list[PurePosixPath], split: str | None, archive: Path
) -> tuple[PurePosixPath, list[PurePosixPath]]:
    """As `split_folder`, for names inside a zip file: the split's folder and the names below that."""
    if split is None:
        return root, names
    if split not in SPLITS:
        raise DataError(f"expected the split to be one of {', '.join(SPLITS)}, got {split!r}")
    for folder in SPLITS[split]:
        if inside := [name.relative_to(folder) for name in names if name.parts[0] == folder]:
            return root / folder, inside
    if split == "train":
        return root, names
    raise DataError(f"{archive}: holds no folder {' or '.join(SPLITS[split])} of images")
