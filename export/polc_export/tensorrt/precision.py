"""Rules of precision: which layers stay in fp32, and when a built engine is what was asked for.

Everything here works on plain descriptions of layers, so that it is tested without TensorRT.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

FLOAT, HALF = "fp32", "fp16"

KEPT_KINDS = frozenset({"NORMALIZATION", "SOFTMAX", "RAGGED_SOFTMAX", "REDUCE", "LRN"})
"""Kinds of network layers that stay in fp32 whatever their tensors are."""

NEVER_PINNED = frozenset(
    {
        "ASSERTION",
        "CAST",
        "CONCATENATION",
        "CONSTANT",
        "FILL",
        "GATHER",
        "IDENTITY",
        "PLUGIN",
        "PLUGIN_V2",
        "PLUGIN_V3",
        "SHAPE",
        "SHUFFLE",
        "SLICE",
    }
)
"""Kinds that compute nothing in floating point, or settle their types themselves."""

MATRIX_KINDS = ("conv", "gemm", "matmul", "matrixmultiply", "matrix_multiply", "mha", "fullyconnected")
"""What the kind of a built layer contains whose work is matrix products: most of a network's."""

MIN_HALF_SHARE = 0.5
"""The rule: an engine is fp16 if at least this share of the matrix layers that can be read run in half."""

UNREAD = "unread"
"""The precision of layers of which the inspector gives none."""

SHOWN = 3
"""Layers that a message names."""


@dataclass(frozen=True)
class NetworkLayer:
    """A layer of a network before it is built.

    Attributes:
        name: as the parser gave it.
        kind: TensorRT's name of its type, such as "SOFTMAX".
        inputs: types of its inputs: fp32, fp16, or another.
        outputs: likewise.
        shape: whether an output is a shape and no data.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: bool = False


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of a built engine, as far as its inspector describes it.

    Attributes:
        name: names of the network's layers in it, joined.
        kind: such as "CaskConvolution" or "gemm".
        types: precisions seen in its inputs, outputs, weights and the name of its kernel.
        tf32: whether the name of its kernel says TF32.
    """

    name: str
    kind: str
    types: frozenset[str]
    tf32: bool = False

    @property
    def is_matrix(self) -> bool:
        """Whether its work is matrix products."""
        kind = self.kind.lower()
        return any(part in kind for part in MATRIX_KINDS)

    @property
    def reduced(self) -> frozenset[str]:
        """Precisions below fp32 in it."""
        return self.types - {FLOAT}


@dataclass(frozen=True)
class Verdict:
    """What was read back of an engine.

    Attributes:
        layers: number of layers by precision: "fp32", "fp16", "fp16+fp32", "unread".
        matrix_layers: those whose work is matrix products, likewise.
        problems: why the engine is not what was asked for; empty where it is.
    """

    layers: dict[str, int]
    matrix_layers: dict[str, int]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the sidecar."""
        return {"all": self.layers, "matrix": self.matrix_layers}

    @property
    def is_unread(self) -> bool:
        """Whether the inspector gives the precision of no matrix product."""
        return set(self.matrix_layers) <= {UNREAD}

    def summary(self) -> str:
        """The counts, for people."""
        counts = ", ".join(f"{count} {what}" for what, count in self.layers.items())
        matrix = sum(self.matrix_layers.values())
        half = sum(count for what, count in self.matrix_layers.items() if HALF in what)
        unread = self.matrix_layers.get(UNREAD, 0)
        return f"layers: {counts}; matrix products: {half} of {matrix} in fp16, {unread} unread"


def kept_layers(layers: Sequence[NetworkLayer], strongly_typed: bool) -> list[NetworkLayer]:
    """Layers of an fp16 graph that must be built in fp32.

    Those are what computes in fp32 in the ONNX file, where the exporter has kept it so. Where the types are
    not the file's anyway, normalisation, softmax and reductions are kept too, whatever the file says; and
    these alone if nothing computes in fp16, since then the network does not have the types of the file.

    Args:
        layers: all layers of the network.
        strongly_typed: whether the types of the file are the engine's.
    """
    typed = strongly_typed or any(HALF in la.outputs for la in layers if la.kind not in NEVER_PINNED)
    return [layer for layer in layers if _is_kept(layer, strongly_typed, typed)]


def _is_kept(layer: NetworkLayer, strongly_typed: bool, typed: bool) -> bool:
    floating = [t for t in (*layer.inputs, *layer.outputs) if t in (FLOAT, HALF)]
    if layer.shape or layer.kind in NEVER_PINNED or not any(t in (FLOAT, HALF) for t in layer.outputs):
        return False
    return (typed and all(t == FLOAT for t in floating)) or (layer.kind in KEPT_KINDS and not strongly_typed)


def judge(layers: Sequence[BuiltLayer], precision: str, exact: bool, kept: Collection[str] = ()) -> Verdict:
    """Whether an engine was built as asked.

    Args:
        layers: what it is made of.
        precision: fp32 or fp16, as asked.
        exact: whether it serves the entropy path.
        kept: names of the network's layers that must be in fp32.
    """
    problems = []
    if precision == FLOAT:
        problems += _found(
            [la for la in layers if la.reduced], "run below fp32, in an engine asked for in fp32"
        )
    else:
        problems += _too_little_half(layers)
        wrong = [la for la in layers if la.reduced == la.types and la.types and _is_made_of(la.name, kept)]
        problems += _found(wrong, "run below fp32, though they are kept in fp32")
    if exact:
        problems += _found([la for la in layers if la.tf32], "run in TF32, in an engine of the entropy path")
    matrix = [layer for layer in layers if layer.is_matrix]
    return Verdict(_counted(layers), _counted(matrix), tuple(problems))


def _too_little_half(layers: Sequence[BuiltLayer]) -> list[str]:
    read = [layer for layer in layers if layer.types and layer.is_matrix]
    if not read and all(layer.types for layer in layers):
        read = list(layers)  # else the matrix products may be where the inspector does not look
    half = sum(HALF in layer.types for layer in read)
    if read and half < MIN_HALF_SHARE * len(read):
        return [f"asked for in fp16, but only {half} of {len(read)} layers that were looked at run in fp16"]
    return []


def _found(layers: Sequence[BuiltLayer], what: str) -> list[str]:
    if not layers:
        return []
    names = ", ".join(layer.name for layer in layers[:SHOWN])
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    return [f"{len(layers)} layers {what}: {names}{more}"]


def _is_made_of(name: str, kept: Collection[str]) -> bool:
    """Whether a built layer is a fusion of kept layers alone; one that a conversion was fused into is not."""
    plain = name.replace("PWN(", "").replace(")", "")  # what TensorRT calls fused pointwise layers
    return all(part in kept for part in re.split(r" \+ |, ", plain))


def _counted(layers: Sequence[BuiltLayer]) -> dict[str, int]:
    found = Counter("+".join(sorted(layer.types)) or UNREAD for layer in layers)
    return dict(sorted(found.items()))
