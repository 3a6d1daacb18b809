"""Figures of merit: of pictures (PSNR, MS-SSIM, LPIPS) and, counted over a data set, of predictions."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from polc_runtime.errors import BackendUnavailable, CheckpointError
from polc_runtime.images import Pixels, to_tensor

from .perceptual import PerceptualLoss

MS_SSIM_MIN_SIDE = 161
"""Five scales with an 11x11 window need this many pixels on the shorter side."""


def psnr(original: Pixels, decoded: Pixels) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / MSE) over all channels; infinite for equal images.

    Args:
        original: uint8 [H,W,3].
        decoded: uint8 [H,W,3].

    Raises:
        ValueError: the images are not uint8 [H,W,3] of one size.
    """
    _check_pair(original, decoded)
    error = float(np.mean(np.square(original.astype(np.float64) - decoded)))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """Multi-scale structural similarity, up to 1 (Wang et al. 2003, as pytorch-msssim computes it).

    Args:
        original: uint8 [H,W,3].
        decoded: uint8 [H,W,3].

    Raises:
        ValueError: the images are not uint8 [H,W,3] of one size, or a side is under 161 pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is compiled by torch.jit.script
        import pytorch_msssim

    _check_pair(original, decoded)
    height, width = original.shape[:2]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(
            f"MS-SSIM needs images of at least {MS_SSIM_MIN_SIDE} pixels on the shorter side; "
            f"this one is {width}x{height}"
        )
    first, second = (
        torch.from_numpy(image[None].transpose(0, 3, 1, 2).astype(np.float64))
        for image in (original, decoded)
    )
    return float(pytorch_msssim.ms_ssim(first, second, data_range=255))


def lpips_vgg(original: Pixels, decoded: Pixels, weights: str | Path | None = None) -> float:
    """LPIPS distance (Zhang et al. 2018, version 0.1) with VGG16's features; 0 for equal images.

    Args:
        original: uint8 [H,W,3].
        decoded: uint8 [H,W,3].
        weights: of VGG16; see `PerceptualLoss`.

    Raises:
        ValueError: the images are not uint8 [H,W,3] of one size.
        BackendUnavailable: the weights could not be had, so that no image can be measured.
    """
    _check_pair(original, decoded)
    try:
        perceptual = _perceptual(weights)
    except CheckpointError as error:
        raise BackendUnavailable(str(error)) from error
    with torch.no_grad():
        first, second = (torch.from_numpy(to_tensor(image)) for image in (decoded, original))
        return float(perceptual.distance(first, second))


class TopK:
    """Counts how often the true class is among the k largest logits.

    Attributes:
        correct: for each k, how many samples.
        total: how many samples there were.
    """

    def __init__(self, ks: tuple[int, ...] = (1, 5)) -> None:
        if not ks or min(ks) < 1:
            raise ValueError(f"expected every k >= 1, got {ks}")
        self.correct = dict.fromkeys(ks, 0)
        self.total = 0

    def update(self, logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        """Counts a batch: logits [B,classes] and labels, whole numbers [B].

        Raises:
            ValueError: the shapes are others, or a label is no class.
        """
        scores, truth = _array(logits), _array(labels)
        if scores.ndim != 2 or truth.shape != scores.shape[:1]:
            raise ValueError(
                f"expected logits [B,classes] and labels [B], got {scores.shape} and {truth.shape}"
            )
        if truth.size and not (truth.min() >= 0 and truth.max() < scores.shape[1]):
            raise ValueError(f"expected labels in 0..{scores.shape[1] - 1}, got {truth.min()}..{truth.max()}")
        hits = np.argsort(-scores, axis=1, kind="stable")[:, : max(self.correct)] == truth[:, None]
        for k in self.correct:
            self.correct[k] += int(hits[:, :k].sum())
        self.total += len(truth)

    def accuracy(self, k: int = 1) -> float:
        """The part of the samples, 0..1, whose class is among the k largest; NaN before the first sample."""
        return self.correct[k] / self.total if self.total else math.nan


class MeanIoU:
    """Counts, class by class, how predicted and true regions overlap.

    Attributes:
        counts: int64 [classes,classes], pixels by true class (row) and predicted class (column); those of
            several processes may be added.
    """

    def __init__(self, classes: int, ignore: int | None = 255) -> None:
        """Starts from zero.

        Args:
            classes: how many there are; labels are 0..classes-1.
            ignore: label of pixels that do not count.
        """
        self.classes, self.ignore = classes, ignore
        self.counts = np.zeros((classes, classes), np.int64)

    def update(self, predicted: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> None:
        """Counts whole-number label maps of one shape, of any number of axes.

        Raises:
            ValueError: the shapes differ, or a label is neither a class nor the ignored one.
        """
        guess, truth = _array(predicted), _array(labels)
        if guess.shape != truth.shape:
            raise ValueError(f"expected label maps of one shape, got {guess.shape} and {truth.shape}")
        if self.ignore is not None:
            kept = truth != self.ignore
            guess, truth = guess[kept], truth[kept]
        for name, values in (("predicted", guess), ("true", truth)):
            if values.size and not (values.min() >= 0 and values.max() < self.classes):
                bounds = f"{values.min()}..{values.max()}"
                raise ValueError(f"expected {name} labels in 0..{self.classes - 1}, got {bounds}")
        pairs = truth.astype(np.int64).ravel() * self.classes + guess.astype(np.int64).ravel()
        self.counts += np.bincount(pairs, minlength=self.classes**2).reshape(self.counts.shape)

    def per_class(self) -> NDArray[np.float64]:
        """Intersection over union of each class, [classes]; NaN where it is neither there nor predicted."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return np.divide(hits, union, out=np.full(self.classes, math.nan), where=union > 0)

    def mean(self) -> float:
        """Mean over the classes that are there or predicted; NaN before the first pixel.

        The official evaluation counts the other classes as 0, which matters on few images alone.
        """
        values = self.per_class()
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else math.nan

    def pixel_accuracy(self) -> float:
        """The part of the pixels, 0..1, whose class is right; NaN before the first pixel."""
        total = int(self.counts.sum())
        return int(np.trace(self.counts)) / total if total else math.nan


@lru_cache(maxsize=1)
def _perceptual(weights: str | Path | None) -> PerceptualLoss:
    return PerceptualLoss(weights)


def _array(values: ArrayLike | Tensor) -> NDArray[Any]:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check_pair(original: Pixels, decoded: Pixels) -> None:
    for image in (original, decoded):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"an image is uint8 [H,W,3]; got {image.dtype} {list(image.shape)}")
    if original.shape != decoded.shape:
        raise ValueError(f"expected images of one size, got {list(original.shape)} and {list(decoded.shape)}")
