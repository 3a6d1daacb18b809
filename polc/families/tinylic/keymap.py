"""The one map between this project's parameter names and the official checkpoint layout's, both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ...entropy import OFFICIAL_PRIOR, official_prior_key
from ...weights import COUNTER, fill, refuse_unknown
from .context import ContextModel

GAINS = {
    "gain": "Gain",
    "inverse_gain": "InverseGain",
    "hyper_gain": "HyperGain",
    "inverse_hyper_gain": "InverseHyperGain",
}
PRIOR = "prior."
SPATIAL_STEPS = tuple(ContextModel.SPATIAL_KERNELS)
QKV = ("q", "k", "v")

TASK_PREFIXES = {
    "adapter.expand.": "adapter.upsample_layer.",
    "adapter.block.": "adapter.transform_layer.residual_group.blocks.0.",
    "model.": "task_model.",
}
"""Beginnings of a task model's names, ours and official; the vision model's own names follow."""

_STAGE = re.compile(r"(g_a|h_a|h_s|g_s)\.(\d+)\.(conv|blocks)\.(.+)")
_CONTEXT = re.compile(r"context\.(channel|entropy|spatial)\.(\d+)\.(.+)")
_QKV = re.compile(r"(?<=\.attn\.)([qkv])(?=\.(?:weight|bias)$)")


def official_key(key: str) -> str:
    """Official name of the tensor that holds our parameter `key` (q, k and v share one)."""
    if key in GAINS:
        return GAINS[key]
    if key.startswith(PRIOR):
        return OFFICIAL_PRIOR + official_prior_key(key.removeprefix(PRIOR))
    if match := _CONTEXT.fullmatch(key):
        kind, index, rest = match[1], int(match[2]), match[3]
        if kind == "channel":
            return f"cc_transforms.{index}.{rest}"
        if kind == "entropy":
            return f"entropy_parameters_{index + 1}.{rest}"
        return f"sc_transform_{SPATIAL_STEPS.index(index) + 1}.{rest}"
    if match := _STAGE.fullmatch(key):
        transform, stage, part, rest = match[1], int(match[2]), match[3], match[4]
        convolution_first = transform.endswith("_a")
        index = 2 * stage + ((part == "conv") != convolution_first)
        rest = _joined(rest)
        return f"{transform}{index}.{rest if part == 'conv' else 'residual_group.blocks.' + rest}"
    for ours, official in TASK_PREFIXES.items():
        if key.startswith(ours):
            return official + _joined(key).removeprefix(ours)
    raise KeyError(key)


def _part(key: str) -> str | None:
    """Which of q, k and v a name of ours stands for; a vision model's names are its own affair."""
    match = None if key.startswith("model.") else _QKV.search(key)
    return match[1] if match else None


def _joined(key: str, to: str = "qkv") -> str:
    return key if _part(key) is None else _QKV.sub(to, key)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under official names, q, k and v joined."""
    official: dict[str, Tensor] = {}
    for key, value in state.items():
        part = _part(key)
        if part is None:
            official[official_key(key)] = value
        elif part == "q":
            official[official_key(key)] = torch.cat([state[_joined(key, part)] for part in QKV])
    return official


def from_official(official: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """The parameters named by `keys` (ours), taken from official tensors; absent ones are left out."""
    state: dict[str, Tensor] = {}
    for key in keys:
        value = official.get(official_key(key))
        if value is None:
            continue
        part = _part(key)
        if part is not None and value.ndim and value.shape[0] % 3 == 0:
            value = value.chunk(3)[QKV.index(part)]
        state[key] = value
    return state


def official_masks(context: ContextModel) -> dict[str, Tensor]:
    """The 0/1 masks of the spatial context, which official checkpoints store beside the weights."""
    return {
        official_key(f"context.spatial.{name}.weight").replace(".weight", ".mask"): (
            context.spatial_net(int(name)).mask.expand_as(context.spatial_net(int(name)).weight)
        )
        for name in context.spatial
    }


def fill_official(
    module: nn.Module,
    expected: Mapping[str, Tensor],
    official: Mapping[str, Tensor],
    constants: tuple[str, ...] = (COUNTER,),
) -> None:
    """As `polc.weights.fill`, from tensors under official names.

    Args:
        module: what to fill.
        expected: its weights, by our names.
        official: what to put there; names that end like `constants` are passed over.
        constants: see there.

    Raises:
        CheckpointError: as `fill`.
    """
    refuse_unknown(official, {official_key(key) for key in expected}, constants)
    fill(module, expected, from_official(official, expected), official_key)
