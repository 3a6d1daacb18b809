"""Reads the precision of built layers back from the text of TensorRT's engine inspector, of 8.6 to 11."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from polc_runtime.errors import ExportError

from .precision import FLOAT, HALF, BuiltLayer

_TYPES = (
    ("bf16", re.compile(r"bf16|bfloat16")),
    (HALF, re.compile(r"fp16|half|float16")),
    ("fp8", re.compile(r"fp8|float8")),
    ("int8", re.compile(r"int8")),
    (FLOAT, re.compile(r"fp32|float")),
)
"""Precisions by how a format or a type is written: "Row major linear FP32", "Half", "Float"; first match."""

_KERNEL_TYPES = (
    ("bf16", re.compile(r"(?:^|_)bf16")),
    (HALF, re.compile(r"(?:^|_)(?:f16|fp16|half|hmma|h884|h1688|h16816)(?!\d)")),
    ("int8", re.compile(r"(?:^|_)(?:i8|int8|imma)")),
)
"""Precisions below fp32 by the parts of kernels' names, such as "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n"."""

_KERNEL_FLOAT = re.compile(r"(?:^|_)(?:f32f32|sgemm|ffma)")
_HASH = re.compile(r"0x[0-9a-f]+")
"""Part of the names of compiled kernels, where "f16" means nothing."""

_PASSIVE = frozenset({"constant", "noop", "reformat", "shapecall", "shape", "signal", "wait"})
"""Kinds of built layers that compute nothing: data moved, formats changed."""

_OPAQUE = frozenset({"myelin"})
"""Kinds of built layers that are whole pieces of a network: fp32 at the edges says nothing of the inside."""

_FORMAT_KEYS = ("Format/Datatype", "Datatype", "DataType", "Format")


def read_layers(text: str) -> list[BuiltLayer]:
    """The layers that compute, from what `EngineInspector.get_engine_information` gives as JSON.

    With dynamic shapes the formats of tensors may be left out ("N/A due to dynamic shapes"); then the types
    of weights and the names of kernels count, and where these are missing too a layer has no types.

    Raises:
        ExportError: it is not that, or was built without details.
    """
    try:
        entries = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"TensorRT's engine inspector gives no JSON with layers: {error}") from None
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise ExportError(
            "TensorRT's engine inspector gives names of layers alone: the engine was built without details"
        )
    layers = (_layer(entry) for entry in entries)
    return [layer for layer in layers if layer.kind.lower() not in _PASSIVE]


def _layer(entry: Mapping[str, Any]) -> BuiltLayer:
    tensors = [*_mappings(entry.get("Inputs")), *_mappings(entry.get("Outputs"))]
    weights = [entry[key] for key in ("Weights", "Bias") if isinstance(entry.get(key), Mapping)]
    written = [str(tensor[key]) for tensor in tensors for key in _FORMAT_KEYS if key in tensor]
    written += [str(weight.get("Type", "")) for weight in weights if weight.get("Count", 1)]
    kernel = _HASH.sub("", str(entry.get("TacticName", "")).lower())
    types = {found for text in written if (found := _first(_TYPES, text.lower()))}
    types |= {name for name, pattern in _KERNEL_TYPES if pattern.search(kernel)}
    if not types and _KERNEL_FLOAT.search(kernel):
        types = {FLOAT}
    kind = str(entry.get("LayerType", ""))
    if kind.lower() in _OPAQUE and types == {FLOAT}:
        types = set()
    return BuiltLayer(
        name=str(entry.get("Name", "")),
        kind=kind,
        types=frozenset(types),
        tf32="tf32" in kernel,
    )


def _mappings(values: Any) -> Iterable[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, list) else []


def _first(patterns: Iterable[tuple[str, re.Pattern[str]]], text: str) -> str | None:
    return next((name for name, pattern in patterns if pattern.search(text)), None)
