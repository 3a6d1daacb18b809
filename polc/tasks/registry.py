"""The vision models that latents can feed, one entry each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from polc_runtime.bitstream.plan import VERSION_1_PAD
from polc_runtime.bundle import Preprocessing, SizeRule
from polc_runtime.errors import CheckpointError

from .architectures import ARCHITECTURES, Architecture
from .pspnet import WIDTHS

TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


IMAGENET = Preprocessing(resize=292, crop=256)
"""The official evaluation's (NJUVISION/POLC): the shorter side scaled to int(256 / (224 / 256)) = 292."""


@dataclass(frozen=True)
class Family:
    """A vision model as data.

    Attributes:
        name: the default name of its task.
        kind: "classification" or "segmentation".
        architecture: how it is taken apart, a name in `ARCHITECTURES`.
        source: timm's name of the model; None for one that timm has no weights for.
        channels: C, what its first stage takes and the adapter gives.
        depth: blocks of the stage that tells it from its siblings (`Architecture.blocks`).
        factor: r, cells of its first grid to one of the latent, along an axis.
        head_dim: channels of one head of the adapter's attention.
        padding: rows and columns that adapter and pixel stem add, right and below, by repetition.
        classes: unless a checkpoint says otherwise.
        sizes: which latents it takes.
        preprocessing: what the encoder's side does to images.
        arguments: further ones for the model's builder.
    """

    name: str
    kind: str
    architecture: str
    source: str | None
    channels: int
    depth: int
    factor: int = 4
    head_dim: int = 32
    padding: int = 0
    classes: int = 1000
    sizes: SizeRule = SizeRule()
    preprocessing: Preprocessing = IMAGENET
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> Architecture:
        """How the model is taken apart."""
        return ARCHITECTURES[self.architecture]


def _convnext(size: str, channels: int, depth: int) -> Family:
    return Family(f"convnext_{size}", "classification", "convnext", f"convnext_{size}", channels, depth)


def _convnext_mini() -> Family:
    """A small model for small pictures, which the codec's least size shows at six times theirs (CIFAR).

    A cell of its first grid is 8 pixels wide; the last stage is dilated instead of strided.
    """
    return Family(
        "convnext_mini",
        "classification",
        "convnext",
        None,
        channels=32,
        depth=3,
        factor=2,
        head_dim=16,
        classes=10,
        preprocessing=Preprocessing(resize=VERSION_1_PAD.min, crop=VERSION_1_PAD.min),
        arguments={
            "depths": (1, 2, 3, 1),
            "dims": (32, 64, 128, 256),
            "patch_size": 8,
            "ls_init_value": None,
        },
    )


def _swin(size: str, channels: int, depth: int) -> Family:
    """Swin's masks are made at run time (`strict_img_size`), so that its size is not fixed."""
    source = f"swin_{size}_patch4_window7_224"
    dynamic = {"strict_img_size": False}
    return Family(f"swin_{size}", "classification", "swin", source, channels, depth, arguments=dynamic)


def _deit(size: str, channels: int) -> Family:
    """One grid cell is one of the latent's, so the adapter's attention window asks for 7 of them."""
    return Family(
        f"deit_{size}",
        "classification",
        "vit",
        f"deit_{size}_patch16_224",
        channels,
        depth=12,
        factor=1,
        head_dim=64,
        sizes=SizeRule(minimum=8),
        arguments={"dynamic_img_size": True},
    )


def _pspnet(
    size: str,
    depths: tuple[int, ...],
    widths: tuple[int, ...] = WIDTHS,
    head_dim: int = 32,
    classes: int = 150,
) -> Family:
    return Family(
        f"pspnet{size}",
        "segmentation",
        "pspnet",
        None,
        channels=2 * widths[0],
        depth=depths[2],
        head_dim=head_dim,
        padding=1,
        classes=classes,
        sizes=SizeRule(extra=1),
        preprocessing=Preprocessing(),
        arguments={"depths": depths, "widths": widths},
    )


_ENTRIES = (
    _convnext("tiny", 96, 9),
    _convnext("small", 96, 27),
    _convnext("base", 128, 27),
    _convnext("large", 192, 27),
    _convnext_mini(),
    _swin("tiny", 96, 6),
    _swin("small", 96, 18),
    _swin("base", 128, 18),
    _deit("small", 384),
    _deit("base", 768),
    _pspnet("50", (3, 4, 6, 3)),
    _pspnet("101", (3, 4, 23, 3)),
    _pspnet("_mini", (1, 1, 3, 1), (16, 32, 48, 64), head_dim=16, classes=11),
)
FAMILIES: dict[str, Family] = {entry.name: entry for entry in _ENTRIES}
"""Vision models by name. DeiT and ViT are one architecture. Those of one architecture differ in `channels` or
`depth`, which `infer_family` tells them by."""


def family(name: str) -> Family:
    """The entry of that name.

    Raises:
        CheckpointError: there is none; the message lists the ones there are.
    """
    if name not in FAMILIES:
        raise CheckpointError(f"no vision model family is named {name!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def infer_family(state: Mapping[str, Tensor]) -> Family:
    """The entry whose model these weights (the model's own key names) belong to.

    Raises:
        CheckpointError: none fits.
    """
    for entry in FAMILIES.values():
        parts = entry.parts
        stem = state.get(parts.stem_weight)
        if stem is not None and stem.shape[:1] == (entry.channels,) and parts.depth(state) == entry.depth:
            return entry
    raise CheckpointError(
        f"the vision model is of no known family (its first weight is {next(iter(state), 'missing')}); "
        f"there are {', '.join(FAMILIES)}; name one by family"
    )


def check_task_name(name: str) -> str:
    """`name`, fit for graphs and files.

    Raises:
        CheckpointError: it is not.
    """
    if not TASK_NAME.fullmatch(name):
        raise CheckpointError(f"{name!r} is not a name for a task: use letters, digits, '_' and '-'")
    return name
