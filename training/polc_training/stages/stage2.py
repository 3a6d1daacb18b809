"""Stage 2: the adapter, trained so that a frozen vision model predicts from a frozen codec's latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polc.families.tinylic.codec import TinyLicCodec
from polc.tasks import TaskModel
from polc.tasks.state import check_adapter
from polc_runtime.bundle.tasks import CLASSIFICATION, SEGMENTATION
from polc_runtime.errors import UsageError

from ..levels import draw_levels
from ..rate_distortion import bits_per_pixel, official_lambdas
from .base import Batch, Group, Losses, Objective, Stage
from .pixels import CRITERIA, Normalise, pad_image

DISTILLATION = {CLASSIFICATION: 0.01, SEGMENTATION: 10.0}
"""Weight of the feature MSE by kind of task (POLC, ICME 2025)."""


class AdapterStage(Stage):
    """Trains an adapter: lambda * bpp + the task's loss + a weight * feature MSE to the teacher.

    The teacher is the same frozen vision model on pixels; features are compared from the adapter's output
    on, and their MSEs summed (POLC, ICME 2025). The rate has no gradient. The codec runs in evaluation mode,
    so that the adapter sees latents as the decoder has them, and its synthesis not at all. A batch is
    (image, target), as in `PixelStage`.

    Args:
        codec: the model whose latents are read.
        task: the vision model and the adapter; only the adapter learns.
        learning_rate: of Adam.
        clip: largest norm of the gradient; None for no limit.
        distillation: weight of the feature MSE; None for that of `DISTILLATION`.
        lambdas: weights of the rate by level; None for the official ones.
        stratified: whether a batch mixes levels, spread evenly; otherwise one level is drawn a step.

    Raises:
        CheckpointError: the adapter reads other latents than the codec's.
        UsageError: the lambdas are not one a level.
    """

    def __init__(
        self,
        codec: TinyLicCodec,
        task: TaskModel,
        learning_rate: float = 1e-4,
        clip: float | None = 1.0,
        distillation: float | None = None,
        lambdas: Sequence[float] | None = None,
        stratified: bool = False,
    ) -> None:
        super().__init__()
        check_adapter(task, codec.config)
        levels = codec.config.levels
        lambdas = official_lambdas(levels) if lambdas is None else lambdas
        if len(lambdas) != levels:
            raise UsageError(f"expected a lambda for each of {levels} levels, got {len(lambdas)}")
        kind = task.family.kind
        self.criterion = CRITERIA[kind]
        self.distillation = DISTILLATION[kind] if distillation is None else distillation
        self.codec, self.task = codec, task
        self.normalise = Normalise(task.family.preprocessing)
        self.lambdas, self.stratified = tuple(lambdas), stratified
        task.adapter.requires_grad_(True)
        groups = [Group(list(task.adapter.parameters()))]
        self.objectives = {"adapter": Objective(groups, learning_rate, clip)}
        self.train()

    def learners(self) -> nn.Module:
        """The adapter."""
        return self.task.adapter

    def frozen(self) -> Sequence[nn.Module]:
        """The codec and the vision model."""
        return (self.codec, self.task.model)

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The losses on (image, target) at levels drawn at random."""
        image, target = batch
        return self.losses(image, target, self.draw(image))

    def draw(self, image: Tensor) -> Tensor:
        """Levels to train a batch of images at: float32 [B]."""
        return draw_levels(len(image), self.codec.config.levels, self.stratified).to(image.device)

    def losses(self, image: Tensor, target: Tensor, quality: Tensor) -> Losses:
        """The losses at integer levels [B]; `bpp` counts the bits over the pixels of the unpadded image."""
        y_hat, bpp = self.encode(image, quality)
        teacher = self.teach(image)
        features = self.task.features(y_hat, quality)
        losses = self.criterion(self.task, features, target)
        rate = (quality.new_tensor(self.lambdas)[quality.long() - 1] * bpp).mean()
        distance = torch.stack([F.mse_loss(*pair) for pair in zip(features, teacher, strict=True)]).sum()
        total = rate + losses["loss"] + self.distillation * distance
        return losses | {"loss": total, "bpp": bpp.mean(), "feature_mse": distance.detach()}

    @torch.no_grad()
    def encode(self, image: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """What the codec makes of images [B,3,H,W]: y_hat [B,M,h,w], and estimated bits per pixel [B]."""
        output = self.codec(pad_image(image, self.codec.plan.pad), quality, reconstruct=False)
        return output.y_hat, bits_per_pixel(output.bits(), image)

    @torch.no_grad()
    def teach(self, image: Tensor) -> list[Tensor]:
        """The teacher's features of images [B,3,H,W]."""
        return self.task.pixel_features(self.normalise(pad_image(image, self.codec.plan.pad)))
