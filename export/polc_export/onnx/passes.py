"""Small rewrites of ONNX graphs that more than one variant of a file needs; each works in place."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Attributes = dict[str, Any]

_OPSET = 20
_FOLDED_BYTES = 1 << 20
"""Largest tensor that is computed beforehand and stored."""


def attributes(node: onnx.NodeProto) -> Attributes:
    """A node's attributes as Python values."""
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def drop_attributes(node: onnx.NodeProto, *names: str) -> None:
    """Takes attributes off a node; those it does not have are none."""
    kept = [entry for entry in node.attribute if entry.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The stored tensors by name."""
    return {tensor.name: tensor for tensor in graph.initializer}


def add_tensor(graph: onnx.GraphProto, name: str, value: np.ndarray) -> str:
    """Stores a tensor under a name, unless there is one of that name; gives the name."""
    if name not in initializers(graph):
        graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Makes these the graph's nodes."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def rename_inputs(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Makes nodes read other values, by their old names."""
    for node in nodes:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node behind those it reads from, and otherwise keeps the order as far as that goes.

    Raises:
        ValueError: nodes read from each other in a ring.
    """
    made_by = {name: index for index, node in enumerate(graph.node) for name in node.output}
    waits_for = [{made_by[name] for name in node.input if name in made_by} for node in graph.node]
    followers: dict[int, list[int]] = {}
    for index, others in enumerate(waits_for):
        for other in others:
            followers.setdefault(other, []).append(index)
    ready = [index for index, others in enumerate(waits_for) if not others]
    order = []
    while ready:
        order.append(heapq.heappop(ready))
        for follower in followers.get(order[-1], []):
            waits_for[follower].remove(order[-1])
            if not waits_for[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(graph.node):
        raise ValueError("the graph's nodes form a ring")
    replace_nodes(graph, [graph.node[index] for index in order])


def drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes and stored tensors that no output depends on; the graph has no subgraphs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    replace_nodes(graph, reversed(kept))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """The type of each value's elements, as far as onnx can infer it, as one of `onnx.TensorProto`'s."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    declared = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in declared}


def bypass_casts(model: onnx.ModelProto, kind: int) -> None:
    """Lets what reads `Cast(Cast(x))` read x, where x and the result are of one type.

    That spares the rounding in between; the casts themselves stay, for `drop_unused`.

    Args:
        model: sorted.
        kind: the type of x and of the result, one of `onnx.TensorProto`'s.
    """
    types = element_types(model)
    casts = {node.output[0]: node for node in model.graph.node if node.op_type == "Cast"}
    names: dict[str, str] = {}
    for name, cast in casts.items():
        inner = casts.get(cast.input[0])
        if inner is not None and types[name] == kind == types.get(inner.input[0]):
            names[name] = names.get(inner.input[0], inner.input[0])
    rename_inputs(model.graph.node, names)


def store_constants(graph: onnx.GraphProto) -> None:
    """Makes stored tensors of Constant nodes, of every kind."""
    kept = []
    for node in graph.node:
        if node.op_type == "Constant":
            (value,) = _run(node, {})
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        else:
            kept.append(node)
    replace_nodes(graph, kept)


def fold_constants(graph: onnx.GraphProto) -> None:
    """Computes beforehand, with onnx's reference, what depends on stored tensors alone.

    Results over a mebibyte are left to the runtime.

    Args:
        graph: sorted.
    """
    known: dict[str, np.ndarray] = {
        name: numpy_helper.to_array(tensor)
        for name, tensor in initializers(graph).items()
        if len(tensor.raw_data) <= _FOLDED_BYTES
    }
    kept = []
    for node in graph.node:
        if node.input and all(name in known for name in node.input if name):
            feeds = {name: known[name] for name in node.input if name}
            values = dict(zip(node.output, _run(node, feeds), strict=True))
            if sum(value.nbytes for value in values.values()) <= _FOLDED_BYTES:
                known |= values
                graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in values.items())
                continue
        kept.append(node)
    replace_nodes(graph, kept)


def _run(node: onnx.NodeProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of one node of the default domain."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    outputs: Any = ReferenceEvaluator(model).run(None, dict(feeds))
    return [np.asarray(value) for value in outputs]
