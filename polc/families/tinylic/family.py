"""TinyLIC and POLC checkpoints: which are theirs, and the codec that they hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polc_runtime.errors import CheckpointError

from ...entropy import CONSTANTS
from ...model import CodecFamily, CodecModel
from ...weights import COUNTER, build
from .codec import TinyLicCodec
from .keymap import fill_official
from .layout import BLOCK, infer_config
from .presets import ModelConfig

OTHER_ATTENTION = "relative_position_bias_table"
"""Windowed attention of codecs whose names are alike otherwise."""
OLD_CONTEXT = "context_prediction_1.weight"
"""The context model of TinyLIC's first release."""


def recognises(official: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of transforms with neighbourhood attention, or of TinyLIC's first release."""
    windowed = any(key.endswith(OTHER_ATTENTION) for key in official)
    return OLD_CONTEXT in official or (not windowed and any(BLOCK.match(key) for key in official))


def load(official: Mapping[str, Tensor]) -> TinyLicCodec:
    """The codec of an official checkpoint's tensors.

    Raises:
        CheckpointError: weights are missing, unknown or wrongly shaped, or of another context model.
    """
    if OLD_CONTEXT in official:
        raise CheckpointError(
            "this is the first release of TinyLIC, whose context model has four steps "
            f"({OLD_CONTEXT}); only models with the nine steps of October 2022 and later "
            "(sc_transform_1.weight, cc_transforms.0.0.weight) can be read: download the new ones"
        )
    config = infer_config(official)
    constants = (*CONSTANTS, ".mask", COUNTER)
    codec = build(
        lambda: TinyLicCodec(config),
        lambda codec, weights: fill_official(codec, weights, official, constants),
    )
    for key, expected in codec.official_constants().items():
        if key in official and not torch.equal(official[key].float(), expected):
            raise CheckpointError(
                f"{key} is not the mask of this coding order: the model codes in another order"
            )
    return codec


def with_levels(model: CodecModel) -> TinyLicCodec:
    """The model itself, if it is a POLC codec: one of quality levels, which can be trained.

    Raises:
        CheckpointError: it is another.
    """
    if not isinstance(model, TinyLicCodec) or not model.config.levels:
        raise CheckpointError("the codec has no quality levels: only POLC codecs can be trained")
    return model


TINYLIC = CodecFamily(
    name="tinylic",
    expects="neighbourhood attention (g_a1.residual_group.blocks.0.attn.rpb), as TinyLIC and POLC have",
    recognises=recognises,
    load=load,
    parse=ModelConfig.from_dict,
    create=TinyLicCodec,
)
