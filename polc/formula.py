"""Weights by formula from a key's text and shape, as the golden vectors' notes describe them."""

import hashlib
import re

import numpy as np

PREFIX = "polc-public:"
CONSTANTS = {
    "mask", "_offset", "_quantized_cdf", "_cdf_length", "scale_table", "scale_bound", "target", "bound"
}  # fmt: skip
CONV_GAIN = {
    "g_a0": 2.0, "g_a2": 0.5, "g_a4": 0.5, "g_a6": 0.5, "h_a0": 0.5, "h_a2": 0.5, "h_s1": 0.5,
    "h_s3": 0.4, "g_s1": 0.5, "g_s3": 0.5, "g_s5": 0.5, "g_s7": 0.045,
}  # fmt: skip
DECONVOLUTIONS = {"h_s1", "h_s3", "g_s1", "g_s3", "g_s5", "g_s7"}
BLOCK_GAIN = {"qkv": 1.0, "proj": 0.7, "fc1": 1.0, "fc2": 0.7}
ENTROPY_GAIN = {"0": 1.4, "2": 1.4, "4": 0.35}


def canonical(key):
    key = key.removeprefix("backbone.")
    if key.startswith("task_model_teacher."):
        key = "task_model." + key.removeprefix("task_model_teacher.")
    return key


def _normal(key, shape):
    seed = int.from_bytes(hashlib.sha256((PREFIX + key).encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def _quantiles(n):
    median = 0.1 * n[..., 1]
    return np.stack([median - 10 - 2 * abs(n[..., 0]), median, median + 10 + 2 * abs(n[..., 2])], -1)


def _level_tables(last, n):
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


def _bias(key, n):
    value = 0.02 * n
    if key == "g_s7.bias":
        value = value + 0.5
    if re.fullmatch(r"entropy_parameters_\d\.4\.bias", key):
        half = n.shape[0] // 2
        value[:half] = np.exp(0.4 + 0.8 * n[:half])
    return value


def _weight(parts, n):
    shape, first = n.shape, parts[0]
    fan = np.prod(shape[1:])
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


def formula_tensor(key, shape):
    """Float32 (or int64) value of an official key, or None for a constant of the model."""
    key = canonical(key)
    parts = key.split(".")
    first, last = parts[0], parts[-1]
    if last in CONSTANTS:
        return None
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    n = _normal(key, tuple(shape))
    if first == "entropy_bottleneck":
        if last == "quantiles":
            value = _quantiles(n)
        elif last.startswith("_matrix"):
            value = np.log(np.expm1(1 / 10**0.2 / shape[1])) + 0.1 * n
        else:
            value = (0.25 if last.startswith("_bias") else 0.1) * n
    elif last in ("Gain", "InverseGain", "HyperGain", "InverseHyperGain", "gamma_1", "gamma_2"):
        value = _level_tables(last, n)
    elif last == "gamma":
        value = 0.3 * (1 + 0.1 * n)
    elif last in ("rpb", "cls_token", "pos_embed"):
        value = 0.2 * n
    elif last == "running_mean":
        value = 0.05 * n
    elif last == "running_var":
        value = 1 + 0.1 * abs(n)
    elif last == "bias":
        value = _bias(key, n)
    elif len(shape) == 1:
        value = 1 + 0.05 * n
    else:
        value = _weight(parts, n)
    return value.astype(np.float32)
