"""Rewrites graphs of opset 18 and later in opset 17, with operators that TensorRT 8.6 reads rightly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from polc_runtime.errors import ExportError

from .passes import add_tensor, attributes, drop_attributes, element_types, initializers, replace_nodes

OPSET = 17
IR_VERSION = 8
"""The newest versions that TensorRT 8.6 knows."""

Sizes = tuple[int | None, ...]
Rule = Callable[["_Rewriter", onnx.NodeProto], list[onnx.NodeProto]]


def lower_to_opset17(model: onnx.ModelProto) -> None:
    """Rewrites a model in place; other domains' operators stay as they are.

    Besides what changed between the opsets: `Shape` of some axes becomes `Shape` and `Slice`, because the
    parser of TensorRT 8.6 overlooks `start` and `end`; `Squeeze` names its axes; GELU is written with Erf.

    Args:
        model: without subgraphs and functions, its constants stored.

    Raises:
        ExportError: an operator has no form in opset 17 that means the same.
    """
    rewriter = _Rewriter(model)
    replace_nodes(model.graph, list(rewriter.rewritten()))
    del model.graph.value_info[:]
    kept = [entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx")]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", OPSET), *kept])
    model.ir_version = IR_VERSION
    for item in (model.graph, *model.graph.node):
        del item.metadata_props[:]
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"{model.graph.name} cannot be written in opset {OPSET} for TensorRT: {reason}; export it "
            "in opset 20, or without the files for TensorRT"
        ) from error


class _Rewriter:
    """One model on its way to opset 17."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.types = element_types(model)
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self.sizes = {
            value.name: _sizes(value)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
            if value.type.tensor_type.HasField("shape")
        }
        self.shapes: set[str] = set()

    def rewritten(self) -> Iterator[onnx.NodeProto]:
        for node in self.graph.node:
            rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
            yield from [node] if rule is None else rule(self, node)

    def stored(self, name: str) -> np.ndarray:
        """A stored tensor.

        Raises:
            ExportError: the value is computed.
        """
        tensor = initializers(self.graph).get(name)
        if tensor is None:
            raise self.refused(f"the value {name} is computed where TensorRT wants it stored")
        return numpy_helper.to_array(tensor)

    def store(self, value: np.ndarray) -> str:
        """Stores a small tensor, once for all its uses."""
        name = f"stored_{value.dtype}_{'x'.join(map(str, value.shape))}_{'_'.join(map(str, value.ravel()))}"
        return add_tensor(self.graph, name, value)

    def refused(self, reason: str) -> ExportError:
        return ExportError(f"{self.graph.name} cannot be written for TensorRT: {reason}")


def _sizes(value: onnx.ValueInfoProto) -> Sizes:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _gelu(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """X / 2 * (1 + erf(x / sqrt(2))), in the order of operations that runtimes know as GELU."""
    if attributes(node).get("approximate", b"none") != b"none":
        raise rewriter.refused("Gelu with an approximation")
    (x,), (y,) = node.input, node.output
    kind = helper.tensor_dtype_to_np_dtype(rewriter.types[y])
    root, one, half = (rewriter.store(np.array(value, kind)) for value in (math.sqrt(2), 1, 0.5))
    steps = (
        ("Div", (x, root), "scaled"),
        ("Erf", (f"{y}_scaled",), "erf"),
        ("Add", (f"{y}_erf", one), "share"),
        ("Mul", (x, f"{y}_share"), "twice"),
    )
    nodes = [_node(node, op, inputs, f"{y}_{output}") for op, inputs, output in steps]
    return [*nodes, _node(node, "Mul", (f"{y}_twice", half), y)]


def _shape(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """All axes, once a tensor, and a Slice of them."""
    (x,), (y,) = node.input, node.output
    limits = attributes(node)
    start, end = limits.get("start", 0), limits.get("end")
    if start == 0 and end is None:
        drop_attributes(node, "start")
        return [node]
    whole = f"{x}_sizes"
    nodes = [] if whole in rewriter.shapes else [_node(node, "Shape", (x,), whole)]
    rewriter.shapes.add(whole)
    ends = np.iinfo(np.int32).max if end is None else end
    bounds = [rewriter.store(np.array([value], np.int64)) for value in (start, ends, 0)]
    return [*nodes, _node(node, "Slice", (whole, *bounds), y)]


def _squeeze(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """With its axes named."""
    if len(node.input) == 1:
        sizes = rewriter.sizes.get(node.input[0])
        if sizes is None or None in sizes:
            raise rewriter.refused(f"Squeeze of {node.input[0]}, whose sizes vary, without axes")
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
        node.input.append(rewriter.store(np.array(axes, np.int64)))
    return [node]


def _split(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Into equal parts by the number of outputs."""
    found = attributes(node)
    if "num_outputs" in found:
        sizes = rewriter.sizes.get(node.input[0], ())
        axis = found.get("axis", 0)
        size = sizes[axis] if sizes else None
        if size is None or size % len(node.output):
            raise rewriter.refused(f"Split of {size} into {len(node.output)} parts that may not be equal")
        drop_attributes(node, "num_outputs")
    return [node]


def _reduce(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """With its axes as an attribute."""
    if len(node.input) == 2:
        axes = rewriter.stored(node.input.pop())
        if axes.size == 0:
            raise rewriter.refused(f"{node.op_type} over no axes")
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    drop_attributes(node, "noop_with_empty_axes")
    return [node]


def _resize(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Without what opset 18 added, if that says nothing."""
    found = attributes(node)
    if found.get("antialias", 0) or found.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise rewriter.refused("Resize with antialias or keep_aspect_ratio_policy")
    drop_attributes(node, "antialias", "keep_aspect_ratio_policy")
    return [node]


def _cast(rewriter: _Rewriter, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Without the attribute that is about 8-bit floats alone."""
    drop_attributes(node, "saturate", "round_mode")
    return [node]


def _node(old: onnx.NodeProto, op: str, inputs: tuple[str, ...], output: str) -> onnx.NodeProto:
    """One of several nodes in place of an old one, which the last of them keeps the name of."""
    name = old.name if output == old.output[0] else f"{old.name}_{op}_{output}"
    return helper.make_node(op, list(inputs), [output], name=name)


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

RULES: dict[str, Rule] = {
    "Cast": _cast,
    "Gelu": _gelu,
    "Resize": _resize,
    "Shape": _shape,
    "Split": _split,
    "Squeeze": _squeeze,
    **{f"Reduce{name}": _reduce for name in _REDUCTIONS},
}
"""What to write in place of a node, by its operator; the others mean the same in both opsets."""
