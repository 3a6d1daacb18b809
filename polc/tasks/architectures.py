"""Kinds of vision models: where the stem ends, what the stages give, what tells their dimensions."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polc_runtime.errors import BackendUnavailable, first_line

from .pspnet import PSPNet
from .resample import resample_grid
from .swin import swin_stage

Features = list[Tensor]


def _unchanged(x: Tensor) -> Tensor:
    return x


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _same_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


@dataclass(frozen=True)
class Architecture:
    """How one kind of vision model is taken apart.

    Attributes:
        builder: makes the model: (source, pretrained, classes, positions, arguments) -> module.
        enter: turns the adapter's map [B,C,H,W] into what the stem would give.
        stem: (model, normalised image [B,3,H,W]) -> what the first stage takes.
        stages: (model, what the stem gives) -> output of every stage or block, in order.
        head: (model, output of the last stage) -> logits.
        stem_weight: parameter whose first dimension is the stem's width.
        blocks: pattern of the keys that count the depth of the stage that families differ in.
        classifier: parameter whose first dimension is the number of classes.
        position_embedding: parameter [1,n,C] of learned positions, the class token's first; or None.
        auxiliary: (model, outputs of all stages) -> logits of the head used in training only; or None.
        modern_keys: renames what older versions of the model's library stored otherwise.
    """

    builder: Callable[..., nn.Module]
    enter: Callable[[Tensor], Tensor]
    stem: Callable[[Any, Tensor], Tensor]
    stages: Callable[[Any, Tensor], Features]
    head: Callable[[Any, Tensor], Tensor]
    stem_weight: str
    blocks: str
    classifier: str
    position_embedding: str | None = None
    auxiliary: Callable[[Any, Features], Tensor] | None = None
    modern_keys: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = _same_keys

    def depth(self, state: Mapping[str, Tensor]) -> int:
        """Blocks in the stage that tells families apart."""
        return len({match[1] for key in state if (match := re.match(self.blocks, key))})


def in_a_row(stages: Any, x: Tensor) -> Features:
    """Output of each stage, every one fed with the one before."""
    outputs = []
    for stage in stages:
        x = stage(x)
        outputs.append(x)
    return outputs


def import_timm() -> Any:
    """The timm package, imported on use and without the notes on deprecations inside torch.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import timm
            import timm.data
    except ImportError as error:
        raise BackendUnavailable(f"vision models need timm ({first_line(error)}): pip install timm") from None
    return timm


def _timm_model(
    source: str, pretrained: bool, classes: int, positions: int | None, arguments: Mapping[str, Any]
) -> nn.Module:
    timm = import_timm()
    grid = {} if positions is None else {"img_size": 16 * round((positions - 1) ** 0.5)}
    return timm.create_model(source, pretrained=pretrained, num_classes=classes, **grid, **arguments)


def _convnext(
    source: str | None,
    pretrained: bool,
    classes: int,
    positions: int | None,
    arguments: Mapping[str, Any],
) -> nn.Module:
    """The model that timm has of that name, or its ConvNeXt with dimensions of our own."""
    if source is not None:
        return _timm_model(source, pretrained, classes, positions, arguments)
    return import_timm().models.convnext.ConvNeXt(num_classes=classes, **arguments)


def _pspnet(
    source: str | None, pretrained: bool, classes: int, positions: int | None, arguments: Mapping[str, Any]
) -> nn.Module:
    return PSPNet(classes, **arguments)


def _with_positions(model: Any, x: Tensor) -> Tensor:
    """Tokens of a map [B,H,W,C], class token first, with the position embedding resampled to H x W."""
    prefix, grid = model.pos_embed[:, :1], model.pos_embed[0, 1:]
    side = round(int(grid.shape[0]) ** 0.5)
    positions = resample_grid(grid.unflatten(0, (side, side)), x).flatten(0, 1)
    token = (model.cls_token + prefix).expand(x.shape[0], -1, -1)
    return torch.cat([token, x.flatten(1, 2) + positions], 1)


def _modern_swin_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Old timm put a stage's downsampling at the end of the stage before, and stored constants.

    Only a layout that has a downsampling in stage 0 is the old one: a newer one is left as it is.
    """
    state = {k: v for k, v in state.items() if not k.endswith((".attn_mask", ".relative_position_index"))}
    if "layers.0.downsample.reduction.weight" not in state:
        return state
    renamed = {}
    for key, value in state.items():
        key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample", key)
        renamed[re.sub(r"^head\.(?=weight|bias)", "head.fc.", key)] = value
    return renamed


ARCHITECTURES: dict[str, Architecture] = {
    "convnext": Architecture(
        builder=_convnext,
        enter=_unchanged,
        stem=lambda model, image: model.stem(image),
        stages=lambda model, x: in_a_row(model.stages, x),
        head=lambda model, x: model.head(model.norm_pre(x)),
        stem_weight="stem.0.weight",
        blocks=r"stages\.2\.blocks\.(\d+)\.",
        classifier="head.fc.weight",
    ),
    "swin": Architecture(
        builder=_timm_model,
        enter=_channels_last,
        stem=lambda model, image: model.patch_embed(image),
        stages=lambda model, x: in_a_row([partial(swin_stage, stage) for stage in model.layers], x),
        head=lambda model, x: model.head(model.norm(x)),
        stem_weight="patch_embed.proj.weight",
        blocks=r"layers\.2\.blocks\.(\d+)\.",
        classifier="head.fc.weight",
        modern_keys=_modern_swin_keys,
    ),
    "vit": Architecture(
        builder=_timm_model,
        enter=_channels_last,
        stem=lambda model, image: model.patch_embed(image),
        stages=lambda model, x: in_a_row(model.blocks, _with_positions(model, x)),
        head=lambda model, x: model.forward_head(model.norm(x)),
        stem_weight="patch_embed.proj.weight",
        blocks=r"blocks\.(\d+)\.",
        classifier="head.weight",
        position_embedding="pos_embed",
    ),
    "pspnet": Architecture(
        builder=_pspnet,
        enter=_unchanged,
        stem=lambda model, image: model.layer0(image),
        stages=lambda model, x: in_a_row(model.stages(), x),
        head=lambda model, x: model.zoom(model.cls(model.ppm(x))),
        stem_weight="layer0.6.weight",
        blocks=r"layer3\.(\d+)\.",
        classifier="cls.4.weight",
        auxiliary=lambda model, stages: model.zoom(model.aux(stages[-2])),
    ),
}
"""Kinds of vision models by name."""
