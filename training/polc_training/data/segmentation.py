"""Images with label maps, the data of stage 2 segmentation, and what is done to both at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from polc_runtime import datasets
from polc_runtime.datasets import Pair, read_labels, to_classes
from polc_runtime.errors import DataError, first_line
from polc_runtime.limits import DEFAULT_LIMITS, Limits
from polc_runtime.pictures.images import read_image

from .augment import draw_uniform, drawing_from, planes

Transform = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]
"""float32 [3,h,w] in 0..1, int64 [h,w] and the source of all randomness -> the same, of another size."""

IGNORE = 255
"""Label of pixels that count neither in the loss nor in the accuracy."""

MEAN = (0.485, 0.456, 0.406)
"""Colour of what lies outside an image: ImageNet's mean."""


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
    """Training: scaled and mirrored at random, then cut to a square, as the official stage 2 does.

    Images are scaled bilinearly, label maps to the nearest; outside the image lie ImageNet's mean colour and
    the ignored label.

    Attributes:
        size: side of the square.
        scale: bounds of the factor.
        ignore: the label of what lies outside.
    """

    size: int = 512
    scale: tuple[float, float] = (0.5, 2.0)
    ignore: int = IGNORE

    def __call__(self, image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """float32 [3,h,w] and int64 [h,w] -> float32 [3,size,size] and int64 [size,size]."""
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        outside = {tv_tensors.Image: list(MEAN), tv_tensors.Mask: self.ignore}
        cut = v2.Compose(
            [v2.RandomHorizontalFlip(), v2.RandomCrop(self.size, pad_if_needed=True, fill=outside)]
        )
        factor = draw_uniform(generator, *self.scale)
        image, labels = resized(image, labels, [max(round(side * factor), 1) for side in labels.shape])
        with drawing_from(generator):
            view, mask = cut(tv_tensors.Image(image), tv_tensors.Mask(labels))
        return view.as_subclass(Tensor), mask.as_subclass(Tensor)


def whole_view(image: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Evaluation: whole images, which the stages pad; nothing is random."""
    return image, labels


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
        """Takes the files of `polc_runtime.datasets.paired_folders` or `listed_pairs`; none is read yet.

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
        self.labels = labels or {}

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
        labels = read_labels(path, self.limits)
        return to_classes(labels, self.classes, self.labels, self.ignore, str(path))


def label_map(classes: int, ignored: Iterable[int] = (), reduce_zero_label: bool = False) -> dict[int, int]:
    """What to make of the labels in files, for `SegmentationImages`.

    Args:
        classes: how many there are.
        ignored: labels in the files of pixels that do not count, besides `IGNORE`.
        reduce_zero_label: whether files count classes from 1, and 0 does not count, as ADE20K's do.
    """
    return datasets.label_map(classes, (IGNORE, *ignored), reduce_zero_label, IGNORE)
