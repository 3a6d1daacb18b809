"""Weights by formula, from a key's text and shape alone: a full-size model for demos and tests, untrained.

The same on every machine and framework; the scales are chosen so that latents, rates and pictures stay in a
plausible range. The golden vectors of the official model were made with the same formula.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from polc.checkpoint import save_checkpoint
from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.keymap import from_official, to_official
from polc.families.tinylic.presets import PRESETS, ModelConfig, preset
from polc.tasks.model import TaskModel
from polc.tasks.registry import Family
from polc.weights import persistent

PREFIX = "polc-public:"
"""Seeds the formula; another prefix gives another model."""
Array = NDArray[np.float64]

CONSTANTS = frozenset(
    ("mask", "_offset", "_quantized_cdf", "_cdf_length", "scale_table", "scale_bound", "target", "bound")
)
CONV_GAIN = {
    "g_a0": 2.0, "g_a2": 0.5, "g_a4": 0.5, "g_a6": 0.5, "h_a0": 0.5, "h_a2": 0.5, "h_s1": 0.5,
    "h_s3": 0.4, "g_s1": 0.5, "g_s3": 0.5, "g_s5": 0.5, "g_s7": 0.045,
}  # fmt: skip
DECONVOLUTIONS = {"h_s1", "h_s3", "g_s1", "g_s3", "g_s5", "g_s7"}
BLOCK_GAIN = {"qkv": 1.0, "proj": 0.7, "fc1": 1.0, "fc2": 0.7}
ENTROPY_GAIN = {"0": 1.4, "2": 1.4, "4": 0.35}


def canonical(key: str) -> str:
    """The key whose seed a wrapper's key shares: the plain codec's, or the task model's for its teacher."""
    key = key.removeprefix("backbone.")
    if key.startswith("task_model_teacher."):
        key = "task_model." + key.removeprefix("task_model_teacher.")
    return key


def _normal(key: str, shape: Sequence[int], prefix: str) -> Array:
    seed = int.from_bytes(hashlib.sha256((prefix + key).encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(tuple(shape))


def _quantiles(n: Array) -> Array:
    median = 0.1 * n[..., 1]
    return np.stack([median - 10 - 2 * abs(n[..., 0]), median, median + 10 + 2 * abs(n[..., 2])], -1)


def _level_tables(last: str, n: Array) -> Array:
    level = np.arange(n.shape[0])[:, None]
    sign = np.ones(n.shape[-1])
    sign[3::7] = -1.0
    base = {
        "Gain": 0.35 * 1.18**level,
        "InverseGain": 1 / (0.35 * 1.18**level),
        "HyperGain": 0.8 * 1.05**level,
        "InverseHyperGain": 1 / (0.8 * 1.05**level),
    }.get(last, 0.8 + 0.05 * level)
    return base * (1 + 0.05 * n) * sign


def _bias(key: str, n: Array) -> Array:
    value = 0.02 * n
    if key == "g_s7.bias":
        value = value + 0.5
    if re.fullmatch(r"entropy_parameters_\d\.4\.bias", key):
        half = n.shape[0] // 2
        value[:half] = np.exp(0.4 + 0.8 * n[:half])
    return value


def _weight(parts: list[str], n: Array) -> Array:
    shape, first = n.shape, parts[0]
    fan = float(np.prod(shape[1:]))
    gain = 1.0
    if len(parts) == 2 and first in DECONVOLUTIONS:
        fan = shape[0] * shape[2] * shape[3] / 4
    if len(parts) == 2 and first in CONV_GAIN:
        gain = CONV_GAIN[first]
    elif "residual_group" in parts:
        gain = BLOCK_GAIN[parts[-2]]
    elif first.startswith("entropy_parameters"):
        gain = ENTROPY_GAIN[parts[1]]
    elif first == "cc_transforms":
        gain = 1.2
    return gain / np.sqrt(fan) * n


def _prior(last: str, n: Array) -> Array:
    if last == "quantiles":
        return _quantiles(n)
    if last.startswith("_matrix"):
        return np.log(np.expm1(1 / 10**0.2 / n.shape[1])) + 0.1 * n
    return (0.25 if last.startswith("_bias") else 0.1) * n


LEVEL_TABLES = frozenset(("Gain", "InverseGain", "HyperGain", "InverseHyperGain", "gamma_1", "gamma_2"))
PLAIN = {
    "gamma": lambda n: 0.3 * (1 + 0.1 * n),
    "rpb": lambda n: 0.2 * n,
    "cls_token": lambda n: 0.2 * n,
    "pos_embed": lambda n: 0.2 * n,
    "running_mean": lambda n: 0.05 * n,
    "running_var": lambda n: 1 + 0.1 * abs(n),
}


def formula_tensor(key: str, shape: Sequence[int], prefix: str = PREFIX) -> NDArray[Any] | None:
    """Value of an official key, float32 (int64 for counters); None for a constant of the model."""
    key = canonical(key)
    parts = key.split(".")
    last = parts[-1]
    if last in CONSTANTS:
        return None
    if last == "num_batches_tracked":
        return np.zeros(tuple(shape), np.int64)
    n = _normal(key, shape, prefix)
    if parts[0] == "entropy_bottleneck":
        value = _prior(last, n)
    elif last in LEVEL_TABLES:
        value = _level_tables(last, n)
    elif last in PLAIN:
        value = PLAIN[last](n)
    elif last == "bias":
        value = _bias(key, n)
    elif len(shape) == 1:
        value = 1 + 0.05 * n
    else:
        value = _weight(parts, n)
    return value.astype(np.float32)


def formula_codec(config: ModelConfig, prefix: str = PREFIX) -> TinyLicCodec:
    """A codec of the given dimensions with formula weights, ready for evaluation."""
    codec = TinyLicCodec(config)
    _fill(codec, dict(codec.named_parameters()), prefix)
    return codec.eval()


def formula_task(
    family: str | Family,
    config: ModelConfig,
    classes: int | None = None,
    positions: int | None = None,
    prefix: str = PREFIX,
) -> TaskModel:
    """A task model with formula weights, ready for evaluation; arguments as in `TaskModel.create`."""
    task = TaskModel.create(family, config, classes, positions)
    _fill(task, persistent(task), prefix)
    return task


def _fill(module: nn.Module, expected: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Gives weights, named as ours, what the formula makes of their official names."""
    official: dict[str, torch.Tensor] = {}
    for key, value in to_official(expected).items():
        weights = formula_tensor(key, value.shape, prefix)
        assert weights is not None
        official[key] = torch.from_numpy(weights)
    module.load_state_dict(from_official(official, expected), strict=False)


@click.command()
@click.argument("name", metavar="PRESET", type=click.Choice(list(PRESETS)))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(name: str, out: Path) -> None:
    """Writes the checkpoint OUT.safetensors of a PRESET, with weights by formula: untrained, for demos."""
    save_checkpoint(out, formula_codec(preset(name)), {"notes": ["weights by formula, untrained"]})
    click.echo(f"{out}: {name}, weights by formula, untrained")


if __name__ == "__main__":
    main()
