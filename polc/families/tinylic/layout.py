"""Reads a model's dimensions off the shapes of an official checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from polc_runtime.bitstream.schedule import group_sizes
from polc_runtime.errors import CheckpointError

from .context import entropy_widths
from .keymap import GAINS
from .presets import ModelConfig

BLOCK = re.compile(r"(g_a|g_s|h_a|h_s)(\d+)\.residual_group\.blocks\.(\d+)\.")
"""Beginning of the names of one attention block's tensors."""


def infer_config(official: Mapping[str, Tensor]) -> ModelConfig:
    """Dimensions of the model whose official tensors these are.

    Raises:
        CheckpointError: a tensor that tells a dimension is missing, or a relative position bias is.
    """
    blocks = sorted({match[0] for key in official if (match := BLOCK.match(key))})
    if missing := [block + "attn.rpb" for block in blocks if block + "attn.rpb" not in official]:
        raise CheckpointError(
            f"{len(missing)} relative position biases are missing ({missing[0]}, ...): the model was saved "
            "under a NATTEN that leaves them out, and cannot be rebuilt without them"
        )
    first = official["g_a1.residual_group.blocks.0.attn.rpb"]
    hyper = _get(official, "h_a1.residual_group.blocks.0.attn.rpb")
    dims = tuple(int(_get(official, f"g_a{2 * i}.weight").shape[0]) for i in range(4))
    fc1 = _get(official, "g_a1.residual_group.blocks.0.mlp.fc1.weight")
    try:
        groups = group_sizes(dims[-1])
    except ValueError as error:
        raise CheckpointError(f"g_a6.weight: {error}") from None
    config = ModelConfig(
        dims=dims,
        depths=tuple(_depth(blocks, f"g_a{2 * i + 1}") for i in range(4)),
        hyper_dim=int(_get(official, "h_a0.weight").shape[0]),
        hyper_depths=tuple(_depth(blocks, f"h_a{2 * i + 1}") for i in range(2)),
        head_dim=dims[0] // int(first.shape[0]),
        kernel_size=(int(first.shape[1]) + 1) // 2,
        hyper_kernel_size=(int(hyper.shape[1]) + 1) // 2,
        mlp_ratio=fc1.shape[0] / fc1.shape[1],
        levels=int(_get(official, "Gain").shape[0]) if has_levels(official) else 0,
        context_width=_width(official, "cc_transforms.{}.0.weight", range(4), list(groups)),
        entropy_width=_width(
            official,
            "entropy_parameters_{}.0.weight",
            range(1, 5),
            [entropy_widths(2 * size, last=group == 3)[0] for group, size in enumerate(groups)],
        ),
    )
    try:
        config.check()
    except ValueError as error:
        raise CheckpointError(f"the shapes make no model: {error}") from None
    return config


def has_levels(official: Mapping[str, Tensor]) -> bool:
    """Whether any level table is there: POLC has them, TinyLIC does not."""
    return any(key in GAINS.values() or key.endswith((".gamma_1", ".gamma_2")) for key in official)


def _get(official: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in official:
        raise CheckpointError(f"missing weights: {key}")
    return official[key]


def _width(
    official: Mapping[str, Tensor], template: str, indexes: range, official_rule: list[int]
) -> int | None:
    """None where the layers are as wide as the official rule says, else the width of the first."""
    widths = [int(_get(official, template.format(index)).shape[0]) for index in indexes]
    return None if widths == official_rule else widths[0]


def _depth(blocks: list[str], group: str) -> int:
    return sum(block.startswith(f"{group}.") for block in blocks)
