"""ONNX files as TensorRT's parser reads them, from 8.6 on: attention inlined, or left to our plugin."""

from __future__ import annotations

from collections import Counter
from importlib import resources

import onnx
import onnx.inliner
from onnx import TensorProto, helper

from polc_runtime.errors import ExportError

from ..onnx.attention_function import PLUGIN_ATTRIBUTES, add_attention_function, has_attention, is_attention
from ..onnx.half import halve_attention
from ..onnx.opset17 import OPSET, lower_to_opset17
from ..onnx.passes import attributes, drop_unused, fold_constants, initializers, store_constants

OPERATORS_FILE = "tensorrt_8_6_operators.txt"

STORED_INPUTS = {
    "BatchNormalization": (1, 2, 3, 4),
    "CumSum": (1,),
    "ReduceSum": (1,),
    "Slice": (3,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
}
"""Inputs that must be stored tensors, by operator."""

OVERLOOKED = {"Shape": ("start", "end")}
"""Attributes that the parser of 8.6 does not look at, so that it would compute something else."""


def inlined_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph of standard operators alone: no functions, no subgraphs, opset 17.

    Args:
        model: a graph of a bundle, float32 or as `to_half` made it; it is not changed.

    Raises:
        ExportError: an operator has no form that TensorRT reads.
    """
    inlined = onnx.inliner.inline_local_functions(_with_plain_attention(model))
    _lower(inlined)
    return inlined


def plugin_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with the attention as nodes for the plugin, which take q, k, v as the graph has them.

    Arguments and errors as `inlined_graph`.
    """
    with_nodes = onnx.shape_inference.infer_shapes(_with_plain_attention(model))
    del with_nodes.functions[:]
    _lower(with_nodes)
    for node in with_nodes.graph.node:
        if is_attention(node):
            node.attribute.extend(
                helper.make_attribute(name, value) for name, value in PLUGIN_ATTRIBUTES.items()
            )
    return with_nodes


def is_half(model: onnx.ModelProto) -> bool:
    """Whether a graph's weights are float16, all but those kept."""
    return any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)


def known_operators() -> frozenset[str]:
    """Names of the operators that TensorRT 8.6's parser supports."""
    text = resources.files(__package__).joinpath(OPERATORS_FILE).read_text("utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def problems(model: onnx.ModelProto) -> list[str]:
    """What TensorRT 8.6 would not read, or would read as something else; empty for a good graph."""
    graph = model.graph
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    stored = initializers(graph).keys()
    found = []
    if model.functions:
        found.append("it has functions")
    if opsets.get("") != OPSET:
        found.append(f"its opset is {opsets.get('')}, not {OPSET}")
    known = known_operators()
    used = Counter(node.op_type for node in graph.node if not is_attention(node))
    found += [f"the operator {name} is not supported" for name in used if name not in known]
    for node in graph.node:
        if any(entry.HasField("g") or entry.graphs for entry in node.attribute):
            found.append(f"{node.op_type} has a subgraph")
        if ignored := set(OVERLOOKED.get(node.op_type, ())) & attributes(node).keys():
            found.append(f"{node.op_type} has {', '.join(sorted(ignored))}, which the parser overlooks")
        computed = [i for i in STORED_INPUTS.get(node.op_type, ()) if i < len(node.input)]
        found += [f"input {i} of {node.op_type} is computed" for i in computed if node.input[i] not in stored]
    return found


def _lower(model: onnx.ModelProto) -> None:
    # TensorRT 8.6 reads integers of Constant nodes as zeros, unless they are stored as tensors.
    store_constants(model.graph)
    fold_constants(model.graph)
    lower_to_opset17(model)
    drop_unused(model.graph)
    for node in model.graph.node:
        node.name = node.name or f"{node.op_type}_{node.output[0]}"  # build logs and errors name layers by it
    if not has_attention(model):
        kept = [entry for entry in model.opset_import if not entry.domain]
        del model.opset_import[:]
        model.opset_import.extend(kept)
    if wrong := problems(model):
        raise ExportError(f"{model.graph.name} cannot be written for TensorRT: {'; '.join(wrong)}")


def _with_plain_attention(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose attention is of the type of the graph, with a body without subgraphs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    half = is_half(model)
    if half:
        halve_attention(copy.graph)
    return add_attention_function(copy, loop=False, half=half)
