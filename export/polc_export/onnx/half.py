"""Graphs in float16: which parts stay in float32, and the conversion, by ONNX Runtime's own converter."""

from __future__ import annotations

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from .attention_function import OP_TYPE, is_attention
from .passes import attributes, bypass_casts, drop_unused, rename_inputs, sort_nodes

KEPT_OPS = (
    # normalisation: sums of squares of many values
    "BatchNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "MeanVarianceNormalization",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "ReduceSumSquare",
    # what has exponents inside, and would overflow or lose the small ones
    "Exp",
    "Log",
    "LogSoftmax",
    "Pow",
    "Reciprocal",
    "Softmax",
    "Sqrt",
    # masks by -1e9, and a softmax inside
    OP_TYPE,
    # positions, which float16 counts no further than 2048
    "Ceil",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Mod",
    "Round",
)
"""Operators that stay in float32 between Casts, besides those that ONNX Runtime's converter keeps anyhow."""

KEPT_INPUT = "quality"
"""Whatever depends on this input alone stays in float32: the gains, which interpolate by powers."""
LINEAR = ("Conv", "MatMul", "Gemm")
"""Operators that stay in float32 where they sum powers, as divisive normalisation does.

The squares of values above 256 are too large for float16.
"""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph with float16 inside; inputs and outputs stay float32.

    Args:
        model: no subgraphs but in its functions; it is not changed.

    Returns:
        The model, its functions unchanged: they are the bodies of nodes that stay in float32.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = node.name or f"node_{index}"  # the converter knows nodes by their names
    half: onnx.ModelProto = convert_float_to_float16(
        copy,
        keep_io_types=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *KEPT_OPS],
        node_block_list=kept_nodes(copy.graph),
    )
    graph = half.graph
    sort_nodes(graph)
    bypass_casts(half, TensorProto.FLOAT)
    drop_unused(graph)
    del graph.value_info[:]
    return half


def kept_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of nodes that depend on `KEPT_INPUT` alone, or sum powers; the graph is sorted."""
    kept = {KEPT_INPUT}
    stored = {tensor.name for tensor in graph.initializer} | {""}
    powers = {name for node in graph.node if node.op_type == "Pow" for name in node.output}
    names = []
    for node in graph.node:
        read = set(node.input) - stored
        if node.op_type in LINEAR and powers & read:
            names.append(node.name)
        elif read and read <= kept:
            kept |= set(node.output)
            names.append(node.name)
        elif not read:
            stored |= set(node.output)
    return names


def halve_attention(graph: onnx.GraphProto) -> None:
    """Lets the attention of a float16 graph take q, k, v and give its output in float16; rpb stays float32.

    For runtimes with a float16 kernel, or with a body that mixes types; ours for the CPU has neither.

    Args:
        graph: as `to_half` leaves it: each of the three comes from a Cast, and a Cast takes the output.
    """
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    to_half = {
        node.input[0]: node.output[0]
        for node in casts.values()
        if attributes(node)["to"] == TensorProto.FLOAT16
    }
    names: dict[str, str] = {}
    for node in graph.node:
        if is_attention(node):
            for index in range(3):
                node.input[index] = casts[node.input[index]].input[0]
            names[to_half[node.output[0]]] = node.output[0]
    rename_inputs(graph.node, names)
    drop_unused(graph)
