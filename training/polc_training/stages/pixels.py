"""Training of vision models on pixels: the classifiers and segmenters that stage 2 feeds with latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polc.tasks import Preprocessing, TaskModel
from polc_runtime.bitstream.plan import VERSION_1_PAD
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.errors import UsageError

from .base import Batch, Group, Losses, Objective, Stage

SMOOTHING = 0.1
"""Label smoothing of classifications (POLC, ICME 2025)."""
AUXILIARY_WEIGHT = 0.4
"""Weight of the auxiliary head's cross-entropy (POLC, ICME 2025; Zhao et al., CVPR 2017)."""
IGNORED = 255
"""Label of pixels that count neither in losses nor in accuracies."""


def adamw(weight_decay: float) -> Callable[[list[dict[str, Any]]], torch.optim.Optimizer]:
    """AdamW for an `Objective`; decays what has two dimensions or more: no biases, norms or level factors."""

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        split = []
        for group in groups:
            for decays in (True, False):
                parameters = [p for p in group["params"] if (p.ndim > 1) == decays]
                split.append({**group, "params": parameters, "weight_decay": weight_decay if decays else 0.0})
        return torch.optim.AdamW([group for group in split if group["params"]])

    return make


class Normalise(nn.Module):
    """Images as a vision model takes them: minus the mean, over the standard deviation of each channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name))[:, None, None]
            self.register_buffer(name, values, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """`image` [B,3,H,W] in 0..1 -> [B,3,H,W]."""
        return (image - self.mean) / self.std


def pad_image(image: Tensor) -> Tensor:
    """Repeats last row and column of `image` [B,3,h,w] to [B,3,H,W] = `padded_size(h, w)`, as the runtime."""
    height, width = image.shape[-2:]
    full_height, full_width = VERSION_1_PAD.padded_size(height, width)
    return F.pad(image, (0, full_width - width, 0, full_height - height), mode="replicate")


def cut(logits: Tensor, like: Tensor) -> Tensor:
    """A segmentation's logits [B,K,H',W'] on the pixels of `like` [...,H,W]; a classification's unchanged."""
    return logits if logits.ndim == 2 else logits[..., : like.shape[-2], : like.shape[-1]]


def classification_losses(task: TaskModel, features: list[Tensor], label: Tensor) -> Losses:
    """Label-smoothed cross-entropy and top-1 accuracy.

    Args:
        task: the model.
        features: as its `features` or `pixel_features` gives them.
        label: integer classes [B].
    """
    logits, label = task.head(features), label.long()
    loss = F.cross_entropy(logits, label, label_smoothing=SMOOTHING)
    accuracy = (logits.argmax(1) == label).float().mean()
    return {"loss": loss, "cross_entropy": loss.detach(), "accuracy": accuracy}


def segmentation_losses(task: TaskModel, features: list[Tensor], mask: Tensor) -> Losses:
    """Cross-entropy of the head and 0.4 of the auxiliary head's; accuracy of the pixels that have a label.

    Args:
        task: the model.
        features: as its `features` or `pixel_features` gives them.
        mask: integer classes [B,H,W], `IGNORED` where there is none; on the unpadded image.
    """
    mask = mask.long()
    logits = cut(task.head(features), mask)
    main = _pixel_cross_entropy(logits, mask)
    losses = {"loss": main, "cross_entropy": main.detach()}
    auxiliary = task.auxiliary(features)
    if auxiliary is not None:
        second = _pixel_cross_entropy(cut(auxiliary, mask), mask)
        losses |= {"loss": main + AUXILIARY_WEIGHT * second, "auxiliary": second.detach()}
    known = mask != IGNORED
    right = (logits.argmax(1) == mask) & known
    return losses | {"accuracy": right.sum() / known.sum().clamp(min=1)}


def _pixel_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels with a label; zero, not NaN, where there is none."""
    total = F.cross_entropy(logits, mask, ignore_index=IGNORED, reduction="sum")
    return total / (mask != IGNORED).sum().clamp(min=1)


Criterion = Callable[[TaskModel, list[Tensor], Tensor], Losses]
CRITERIA: Mapping[str, Criterion] = {
    CLASSIFICATION: classification_losses,
    SEGMENTATION: segmentation_losses,
}
"""Losses by kind of task: (model, features, target) -> losses."""


def criterion_of(task: TaskModel, kind: str) -> Criterion:
    """The losses of a kind of task.

    Raises:
        UsageError: the model is of another kind.
    """
    if task.family.kind != kind:
        raise UsageError(f"{task.family.name} is for {task.family.kind}, expected a model for {kind}")
    return CRITERIA[kind]


class PixelStage(Stage):
    """Trains a vision model, its own stem included, on pixels; the adapter is left alone.

    A batch is (image, target): images [B,3,H,W] in 0..1 of any size, which are padded as the runtime pads
    them and then normalised.

    Args:
        task: the model; only `task.model` learns.
        learning_rate: of the optimiser.
        clip: largest norm of the gradient; None for no limit.
        weight_decay: of AdamW; None for Adam.
    """

    kind: str

    def __init__(
        self,
        task: TaskModel,
        learning_rate: float = 1e-3,
        clip: float | None = 1.0,
        weight_decay: float | None = 0.05,
    ) -> None:
        super().__init__()
        self.criterion = criterion_of(task, self.kind)
        self.task, self.normalise = task, Normalise(task.family.preprocessing)
        task.model.requires_grad_(True)
        optimizer = torch.optim.Adam if weight_decay is None else adamw(weight_decay)
        groups = [Group(list(task.model.parameters()))]
        self.objectives = {"model": Objective(groups, learning_rate, clip, optimizer=optimizer)}
        self.train()

    def learners(self) -> nn.Module:
        """The vision model."""
        return self.task.model

    def frozen(self) -> Sequence[nn.Module]:
        """The adapter."""
        return (self.task.adapter,)

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The losses on (image, target)."""
        image, target = batch
        return self.criterion(self.task, self._features(image), target)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of images [B,3,H,W] in 0..1: [B,classes], or [B,classes,H,W] of a segmentation."""
        return cut(self.task.head(self._features(image)), image)

    def _features(self, image: Tensor) -> list[Tensor]:
        return self.task.pixel_features(self.normalise(pad_image(image)))


class PixelClassification(PixelStage):
    """Trains a classifier: label-smoothed cross-entropy; targets are classes [B]."""

    kind = CLASSIFICATION


class PixelSegmentation(PixelStage):
    """Trains a segmenter: cross-entropy and 0.4 of the auxiliary head's; targets are masks [B,H,W].

    A batch holds two images at least: one alone has no statistics in the pyramid's coarsest bin.
    """

    kind = SEGMENTATION

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The losses on (image, mask).

        Raises:
            UsageError: the batch holds one image alone.
        """
        if self.training and len(batch[0]) < 2:
            raise UsageError("a segmenter is trained on batches of at least 2 images, got 1")
        return super().forward(objective, batch)
