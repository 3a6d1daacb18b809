"""Images with label maps, the data of stage 2 segmentation, and what is done to both at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from polc_runtime.bitstream.plan import VERSION_1_PAD
from polc_runtime.errors import DataError, first_line
from polc_runtime.limits import DEFAULT_LIMITS, Limits
from polc_runtime.pictures.images import read_image, safe_formats

from .augment import draw_uniform, drawing_from, planes
from .images import image_files, split_folder

Pair = tuple[Path, Path]
"""Files of an image and of its label map."""

Transform = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]
"""float32 [3,h,w] in 0..1, int64 [h,w] and the source of all randomness -> the same, of another size."""

IGNORE = 255
"""Label of pixels that count neither in the loss nor in the accuracy."""

MEAN = (0.485, 0.456, 0.406)
"""Colour of what lies outside an image: ImageNet's mean."""

_MAX_LABEL = 65535


def paired_folders(folder: str | Path, split: str | None = None) -> list[Pair]:
    """Images in FOLDER/images with label maps of the same name, but for the suffix, in FOLDER/masks.

    Args:
        folder: with the two folders, or with one of each split with the two in it.
        split: which of `train`, `val` and `test` to take; see `split_folder`.

    Raises:
        DataError: a folder is not there or empty, or an image has no label map.
    """
    root = split_folder(Path(folder), split)
    images, masks = root / "images", root / "masks"
    found = {mask.relative_to(masks).with_suffix(""): mask for mask in image_files(masks)}
    files = image_files(images)
    names = [file.relative_to(images).with_suffix("") for file in files]
    if lacking := [str(file) for file, name in zip(files, names, strict=True) if name not in found]:
        raise DataError(f"{masks}: has no label map for {len(lacking)} of the images, such as {lacking[0]}")
    return [(file, found[name]) for file, name in zip(files, names, strict=True)]


def listed_pairs(list_file: str | Path, root: str | Path | None = None) -> list[Pair]:
    """Pairs from a list in the layout of hszhao/semseg: a line holds the paths of an image and its label map.

    Args:
        list_file: text; empty lines are passed over.
        root: what the paths are relative to; by default the folder the list lies in.

    Raises:
        DataError: the list cannot be read, is empty, or a line holds anything but two paths.
    """
    path = Path(list_file)
    base = path.parent if root is None else Path(root)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of images ({first_line(error)})") from error
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if len(parts) not in (0, 2):
            raise DataError(f"{path}, line {number}: expected an image and a label map, got {line.strip()!r}")
        if parts:
            pairs.append((base / parts[0], base / parts[1]))
    if not pairs:
        raise DataError(f"{path}: lists no images")
    return pairs


@dataclass(frozen=True)
class RandomView:
    """Training: scaled, turned, blurred and mirrored at random, then cut to a square.

    Scaling, mirroring and cutting are what the official stage 2 does; hszhao/semseg, which trained the
    PSPNets, also turns half of the images by up to 10 degrees and blurs half of them. Images are scaled
    bilinearly, label maps to the nearest; outside the image lie its mean colour and the ignored label.

    Attributes:
        size: side of the square.
        scale: bounds of the factor.
        rotate: most degrees, either way; 0 never turns.
        blur: whether to blur half of the images by a Gaussian of 5x5 pixels (sigma 1.1, OpenCV's rule).
        ignore: the label of what lies outside.
    """

    size: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    rotate: float = 0.0
    blur: bool = False
    ignore: int = IGNORE

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """float32 [3,h,w] and int64 [h,w] -> float32 [3,size,size] and int64 [size,size]."""
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        outside = {tv_tensors.Image: list(MEAN), tv_tensors.Mask: self.ignore}
        bilinear = v2.InterpolationMode.BILINEAR
        steps: list[v2.Transform] = [
            v2.RandomHorizontalFlip(),
            v2.RandomCrop(self.size, pad_if_needed=True, fill=outside),
        ]
        if self.blur:
            steps.insert(0, v2.RandomApply([v2.GaussianBlur(5, 1.1)]))
        if self.rotate:
            steps.insert(0, v2.RandomApply([v2.RandomRotation(self.rotate, bilinear, fill=outside)]))
        factor = draw_uniform(generator, *self.scale)
        image, labels = resized(image, labels, [max(round(side * factor), 1) for side in labels.shape])
        with drawing_from(generator):
            view, mask = v2.Compose(steps)(tv_tensors.Image(image), tv_tensors.Mask(labels))
        return view.as_subclass(Tensor), mask.as_subclass(Tensor)


@dataclass(frozen=True)
class WholeView:
    """Evaluation on whole images, padded on the right and below as the codec pads them.

    Attributes:
        ignore: the label of the padding.
    """

    ignore: int = IGNORE

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """float32 [3,h,w] and int64 [h,w] -> the same with `padded_size(h, w)`."""
        height, width = labels.shape
        full_height, full_width = VERSION_1_PAD.padded_size(height, width)
        margins = (0, full_width - width, 0, full_height - height)
        return F.pad(image[None], margins, mode="replicate")[0], F.pad(labels, margins, value=self.ignore)


def resized(image: Tensor, labels: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Scales an image [3,h,w] bilinearly, as OpenCV does, and its labels [h,w] to the nearest."""
    if list(size) == list(labels.shape):
        return image, labels
    scaled = F.interpolate(image[None], tuple(size), mode="bilinear", align_corners=False)[0]
    nearest = F.interpolate(labels[None, None].float(), tuple(size), mode="nearest")[0, 0]
    return scaled, nearest.to(labels.dtype)


class SegmentationImages:
    """Images and their label maps.

    Attributes:
        pairs: the files.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        transform: Transform,
        classes: int,
        labels: Mapping[int, int] | None = None,
        ignore: int = IGNORE,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Takes the files of `paired_folders` or `listed_pairs`; none is read yet.

        Args:
            pairs: files of images and label maps.
            transform: what to make of each pair.
            classes: how many there are; labels are 0..classes-1, after `labels`.
            labels: what to make of some of the labels in the files, 0..65535, see `label_map`.
            ignore: label, after `labels`, of pixels that do not count.
            limits: bounds on an image's size.

        Raises:
            DataError: there are no pairs.
        """
        if not pairs:
            raise DataError("there are no images with label maps")
        self.pairs, self.transform, self.limits = list(pairs), transform, limits
        self.classes, self.ignore = classes, ignore
        self._table = np.arange(_MAX_LABEL + 1)
        for old, new in (labels or {}).items():
            self._table[old] = new

    def __len__(self) -> int:
        return len(self.pairs)

    def sample(self, index: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """An image, float32 [3,H,W] in 0..1, and its labels, int64 [H,W].

        Raises:
            PolcError: a file cannot be read, the sizes differ, or there is a label that is no class.
        """
        image_file, label_file = self.pairs[index]
        image = planes(read_image(image_file, self.limits).pixels)
        labels = self._labels(label_file)
        if labels.shape != image.shape[1:]:
            (height, width), (rows, columns) = image.shape[1:], labels.shape
            raise DataError(f"{label_file}: has {columns}x{rows} pixels, its image {width}x{height}")
        return self.transform(image, torch.from_numpy(labels), generator)

    def _labels(self, path: Path) -> NDArray[np.int64]:
        labels = self._table[read_label_map(path, self.limits)]
        wrong = np.unique(labels[(labels != self.ignore) & ((labels < 0) | (labels >= self.classes))])
        if wrong.size:
            raise DataError(
                f"{path}: holds the label {wrong[0]}, but the labels of {self.classes} classes are "
                f"0..{self.classes - 1}, and {self.ignore} for pixels to ignore; say what to make of it by "
                "--ignore-label or --reduce-zero-label"
            )
        return labels


def label_map(classes: int, ignored: Iterable[int] = (), reduce_zero_label: bool = False) -> dict[int, int]:
    """What to make of the labels in files, for `SegmentationImages`.

    Args:
        classes: how many there are.
        ignored: labels in the files of pixels that do not count, besides `IGNORE`.
        reduce_zero_label: whether files count classes from 1, and 0 does not count, as ADE20K's do.
    """
    shifted = {label: label - 1 for label in range(1, classes + 1)} if reduce_zero_label else {}
    unlabelled = (0,) if reduce_zero_label else ()
    return shifted | dict.fromkeys((*unlabelled, IGNORE, *ignored), IGNORE)


def read_label_map(path: Path, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.int64]:
    """The labels, int64 [H,W], in a file of one channel: palette indexes, or grey of 1, 8 or 16 bits.

    Raises:
        DataError: the file cannot be read, is too large, or has another kind of pixels.
    """
    try:
        with Image.open(path, formats=safe_formats()) as image:
            if problem := limits.size_problem(*image.size):
                raise DataError(f"{path}: {problem}")
            if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
                raise DataError(
                    f"{path}: expected a label map of one channel, got pixels of mode {image.mode}"
                )
            labels = np.asarray(image).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # what Pillow raises on damaged files can be anything
        raise DataError(f"{path}: cannot be read as a label map ({first_line(error)})") from error
    if labels.min() < 0 or labels.max() > _MAX_LABEL:
        raise DataError(f"{path}: labels lie in 0..{_MAX_LABEL}, these in {labels.min()}..{labels.max()}")
    return labels
