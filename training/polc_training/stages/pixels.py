"""Training of vision models on pixels: the classifiers and segmenters that stage 2 feeds with latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polc.tasks import Preprocessing, TaskModel
from polc_runtime.bitstream.plan import VERSION_1_PAD, Pad
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.errors import UsageError

from ..data.segmentation import IGNORE
from .base import Batch, Group, Losses, Objective, Stage

SMOOTHING = 0.1
"""Label smoothing of classifications (POLC, ICME 2025)."""
AUXILIARY_WEIGHT = 0.4
"""Weight of the auxiliary head's cross-entropy (POLC, ICME 2025; Zhao et al., CVPR 2017)."""


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


def pad_image(image: Tensor, pad: Pad = VERSION_1_PAD) -> Tensor:
    """`polc_runtime.pictures.images.pad` for tensors: [B,3,h,w] -> [B,3,H,W] = `pad.padded_size(h, w)`."""
    height, width = image.shape[-2:]
    full_height, full_width = pad.padded_size(height, width)
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
        mask: integer classes [B,H,W], `IGNORE` where there is none; on the unpadded image.
    """
    mask = mask.long()
    logits = cut(task.head(features), mask)
    main = _pixel_cross_entropy(logits, mask)
    losses = {"loss": main, "cross_entropy": main.detach()}
    auxiliary = task.auxiliary(features)
    if auxiliary is not None:
        second = _pixel_cross_entropy(cut(auxiliary, mask), mask)
        losses |= {"loss": main + AUXILIARY_WEIGHT * second, "auxiliary": second.detach()}
    known = mask != IGNORE
    right = (logits.argmax(1) == mask) & known
    return losses | {"accuracy": right.sum() / known.sum().clamp(min=1)}


def _pixel_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels with a label; zero, not NaN, where there is none."""
    total = F.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="sum")
    return total / (mask != IGNORE).sum().clamp(min=1)


CRITERIA: Mapping[str, Callable[[TaskModel, list[Tensor], Tensor], Losses]] = {
    CLASSIFICATION: classification_losses,
    SEGMENTATION: segmentation_losses,
}
"""Losses by kind of task: (model, features, target) -> losses."""


class PixelStage(Stage):
    """Trains a vision model, its own stem included, on pixels; the adapter is left alone.

    A batch is (image, target): images [B,3,H,W] in 0..1 of any size, which are padded as the runtime pads
    them and then normalised; classes [B], or masks [B,H,W] of a segmentation.

    Args:
        task: the model; only `task.model` learns.
        learning_rate: of the optimiser.
        clip: largest norm of the gradient; None for no limit.
        weight_decay: of AdamW; None for Adam.
    """

    def __init__(
        self,
        task: TaskModel,
        learning_rate: float = 1e-3,
        clip: float | None = 1.0,
        weight_decay: float | None = 0.05,
    ) -> None:
        super().__init__()
        self.criterion = CRITERIA[task.family.kind]
        self.task, self.normalise = task, Normalise(task.family.preprocessing)
        optimizer = torch.optim.Adam if weight_decay is None else adamw(weight_decay)
        groups = [Group(list(task.model.parameters()))]
        self.objectives = {"model": Objective(groups, learning_rate, clip, optimizer=optimizer)}
        task.model.requires_grad_(True)
        self.train()

    def learners(self) -> nn.Module:
        """The vision model."""
        return self.task.model

    def frozen(self) -> Sequence[nn.Module]:
        """The adapter."""
        return (self.task.adapter,)

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The losses on (image, target).

        Raises:
            UsageError: a segmenter's batch holds one image alone, which has no statistics in the coarsest bin
                of the pyramid.
        """
        image, target = batch
        if self.training and self.task.family.kind == SEGMENTATION and len(image) < 2:
            raise UsageError("a segmenter is trained on batches of at least 2 images, got 1")
        return self.criterion(self.task, self._features(image), target)

    def predict(self, image: Tensor) -> Tensor:
        """Logits of images [B,3,H,W] in 0..1: [B,classes], or [B,classes,H,W] of a segmentation."""
        return cut(self.task.head(self._features(image)), image)

    def _features(self, image: Tensor) -> list[Tensor]:
        return self.task.pixel_features(self.normalise(pad_image(image)))
