"""A task: a vision model behind an adapter, predicting from latents; or from pixels, by its own stem."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..families.tinylic.adapter import LatentAdapter
from ..families.tinylic.presets import ModelConfig
from .pretrained import load_pretrained
from .registry import Family
from .registry import family as family_named


class TaskModel(nn.Module):
    """Predicts from a decoded latent; or from pixels, as the teacher and the pixel baseline do.

    `adapter` and `model` hold the weights. Nothing here depends on the values of a tensor, and every size is
    dynamic unless `family.sizes` says otherwise, so that torch.export can trace all methods.

    Args:
        family: the registry's entry.
        adapter: stands in for the model's stem.
        model: the whole vision model, its stem included.
    """

    def __init__(self, family: Family, adapter: LatentAdapter, model: nn.Module) -> None:
        super().__init__()
        self.family, self.adapter, self.model = family, adapter, model

    @classmethod
    def create(
        cls,
        family: str | Family,
        config: ModelConfig,
        classes: int | None = None,
        positions: int | None = None,
        weights: str | None = None,
    ) -> TaskModel:
        """A task model for a codec, its adapter freshly initialised, in evaluation mode.

        Args:
            family: an entry of the registry or its name.
            config: dimensions of the codec.
            classes: None for the family's own.
            positions: entries of a learned position embedding, the class token's included (197 or 257 for
                DeiT); None for the family's own.
            weights: None for random ones, "timm" for those that timm downloads, else the path of a
                checkpoint of the vision model alone.

        Raises:
            CheckpointError: no such family, or the weights cannot be downloaded or read.
        """
        entry = family_named(family) if isinstance(family, str) else family
        adapter = LatentAdapter(
            config.latent_channels,
            entry.channels,
            entry.factor,
            entry.head_dim,
            config.levels,
            entry.padding,
            config.rel_pos_bias,
        )
        model = load_pretrained(entry, entry.classes if classes is None else classes, positions, weights)
        return cls(entry, adapter, model).eval()

    @property
    def classes(self) -> int:
        """Number of classes of the logits."""
        return int(self.model.state_dict()[self.family.parts.classifier].shape[0])

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Logits from a latent.

        Args:
            y_hat: decoded latent [B,M,h,w], without the inverse gain.
            quality: float32 [B], real-valued.

        Returns:
            Tensor [B,classes]; for a segmentation [B,classes,16*h+1,16*w+1], the padded grid.
        """
        return self.head(self.features(y_hat, quality))

    def features(self, y_hat: Tensor, quality: Tensor) -> list[Tensor]:
        """What distillation compares with `pixel_features`: the adapter's output, then each stage's.

        In the model's own layout: NCHW for ConvNeXt and PSPNet, NHWC for Swin and DeiT's first, tokens with
        the class token first for DeiT's blocks.
        """
        return self._stages(self.family.parts.enter(self.adapter(y_hat, quality)))

    def forward_pixels(self, image: Tensor) -> Tensor:
        """Logits from a normalised image [B,3,H,W] through the model's own stem; shapes as in `forward`."""
        return self.head(self.pixel_features(image))

    def pixel_features(self, image: Tensor) -> list[Tensor]:
        """The teacher's features of a normalised image [B,3,H,W]: the stem's output, then each stage's.

        A segmentation's image gets its last row and column repeated first, as the adapter's map does.
        """
        padding = self.family.padding
        if padding:
            image = F.pad(image, (0, padding, 0, padding), mode="replicate")
        return self._stages(self.family.parts.stem(self.model, image))

    def head(self, features: list[Tensor]) -> Tensor:
        """Logits of `features`' or `pixel_features`' result."""
        return self.family.parts.head(self.model, features[-1])

    def auxiliary(self, features: list[Tensor]) -> Tensor | None:
        """Logits of the head that only training uses, shaped like `head`'s; None where there is none."""
        auxiliary = self.family.parts.auxiliary
        return None if auxiliary is None else auxiliary(self.model, features[1:])

    def _stages(self, x: Tensor) -> list[Tensor]:
        return [x, *self.family.parts.stages(self.model, x)]
