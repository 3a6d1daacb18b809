"""One graph of a model as an ONNX model: traced by torch.onnx, axes named, attention made portable."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnxscript.values import Opset
from torch.export import Dim

from polc.attention import attention_kernel
from polc.backends.evaluation import evaluating
from polc.graphs import GraphSpec, sizes_of
from polc_runtime.bundle import Axes
from polc_runtime.errors import ExportError, first_line

from .attention_function import DOMAIN, OP_VERSION, add_attention_function, register_schema

EXAMPLE_SIZES = {"batch": 2, "h": 3, "w": 4}
"""What each unit of the dynamic axes is while tracing."""

_polc_ops = Opset(DOMAIN, OP_VERSION)


def export_graph(spec: GraphSpec, opset: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Traces a graph with dynamic axes.

    The attention stays one node of domain `polc`, with its portable body as a model-local function.

    Args:
        spec: the graph.
        opset: of the default domain.
        metadata: facts to store in the file's `metadata_props`.

    Raises:
        ExportError: torch.onnx could not trace it.
    """
    register_schema()
    units = {name: Dim(name, max=1 << 12) for name in EXAMPLE_SIZES}
    shapes = tuple(_dynamic_axes(axes, units) for axes in spec.inputs.values())
    try:
        with evaluating(spec.module), attention_kernel("operator"), torch.no_grad(), _quiet():
            program = torch.onnx.export(
                spec.module,
                example_inputs(spec),
                dynamo=True,
                opset_version=opset,
                input_names=list(spec.inputs),
                output_names=list(spec.outputs),
                dynamic_shapes=(shapes,),
                custom_translation_table={torch.ops.polc.na2d.default: _attention_node},
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"{spec.name} could not be exported: {first_line(error)}") from error
    assert program is not None
    model = program.model_proto
    _tidy(model, spec, metadata)
    return add_attention_function(model)


def example_inputs(spec: GraphSpec) -> tuple[torch.Tensor, ...]:
    """Inputs to trace a graph with, of `EXAMPLE_SIZES`."""
    return tuple(_example(name, axes) for name, axes in spec.inputs.items())


def _attention_node(q: Any, k: Any, v: Any, rpb: Any, kernel_size: int, scale: float) -> Any:
    return _polc_ops.NeighborhoodAttention2D(q, k, v, rpb, kernel_size=kernel_size, scale=scale)


def _dynamic_axes(axes: Axes, units: Mapping[str, Any]) -> dict[int, Any]:
    dynamic = {}
    for index, axis in enumerate(axes):
        if isinstance(axis, str):
            factor, _, unit = axis.rpartition("*")
            dynamic[index] = int(factor) * units[unit] if factor else units[unit]
    return dynamic


def _example(name: str, axes: Axes) -> torch.Tensor:
    return torch.rand(sizes_of(axes, EXAMPLE_SIZES)) + (1 if name == "quality" else 0)


def _tidy(model: onnx.ModelProto, spec: GraphSpec, metadata: Mapping[str, str]) -> None:
    """Names the axes as the spec does, adds the metadata, and drops what names this machine's files."""
    for values, axes in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        for value in values:
            for dim, axis in zip(value.type.tensor_type.shape.dim, axes[value.name], strict=True):
                if isinstance(axis, str):
                    dim.dim_param = axis
                else:
                    dim.dim_value = axis
    del model.graph.value_info[:]
    model.graph.name = spec.name
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    model.doc_string = ""
    onnx.helper.set_model_props(model, dict(metadata))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences torch.onnx's notes on dimension names and deprecations inside torch itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
