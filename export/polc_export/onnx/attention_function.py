"""Neighbourhood attention as an ONNX function: the body that runs where no kernel is registered.

Along an axis of length L query i attends to keys start..start+k-1, start = clamp(i - k//2, 0, L-k) (to all if
L < k), with bias rpb[head, key - query + k - 1] by axis. Queries are taken in tiles of T x T; the P x P keys
around a tile, P = T + k - 1, hold all keys of all its queries, and the bias masks those a query does not see.
With T >= k//2 + 1 all tiles of an axis but the first and the last two see their keys in the same places, so
that four patterns of mask an axis serve every size.

Layout: q, k, v [B, H, W, heads, dim] are read as [B, H*W*heads, dim], and one Gather brings a tile's vectors
together as [B, tiles, heads, T*T or P*P, dim]. Transposing heads to the front, gathering rows and then
columns, or joining k and v was slower each time; see `attention_function` for what the Loop saves.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import onnx
import onnx.defs
from onnx import helper, shape_inference

from polc_runtime.errors import ExportError

from .graph_builder import GraphBuilder, Value

DOMAIN = "polc"
OP_TYPE = "NeighborhoodAttention2D"
OP_VERSION = 1

PLUGIN_ATTRIBUTES = {"plugin_version": str(OP_VERSION), "plugin_namespace": ""}
"""What TensorRT's parser looks a plugin up by, besides the operator's name; it does not read the domain.

These are the parser's defaults. No other runtime reads them.
"""

MIN_OPSET = 13
"""The first opset whose Softmax and Unsqueeze are those of the body."""

_MIN_IR_VERSION = 8  # the first with functions
_LEAST_TILE = 4  # 5, 6 and 8 cost 1.2, 1.3 and 1.6 times the time
_MASKED = -1e9
_INPUTS = ("q", "k", "v", "rpb")
_INTERIOR = 1  # the pattern of the tiles that no border touches


def attention_function(loop: bool = True, opset: int = 20, half: bool = False) -> onnx.FunctionProto:
    """Builds the portable body of `polc::NeighborhoodAttention2D`.

    One function serves every size, batch, number of heads and odd kernel size. Inputs q, k, v
    [B, H, W, heads, dim] and rpb [heads, 2k-1, 2k-1], float32; attributes `kernel_size` and `scale`, both
    required; output [B, H, W, heads, dim].

    Args:
        loop: work on one row of tiles at a time, as fast and in a seventh of the memory; without, the body
            has no Loop and no If, for runtimes that cannot take them.
        opset: version of the default domain, the model's.
        half: q, k, v and the output are float16, and so are both products; bias and softmax stay float32,
            where the -1e9 that masks a key is a number.

    Raises:
        ExportError: the opset is older than the operators used.
    """
    if opset < MIN_OPSET:
        raise ExportError(
            f"the portable attention needs opset {MIN_OPSET} or later, got {opset}; export with a later one"
        )
    b = GraphBuilder()
    task = _Task.of(b, half)
    tiled = _attend_by_rows(task) if loop else _attend_at_once(task)
    tiled.untile(task)
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        list(_INPUTS),
        ["out"],
        b.nodes,
        [helper.make_opsetid("", opset)],
        attributes=["kernel_size", "scale"],
    )


def add_attention_function(model: onnx.ModelProto, loop: bool = True, half: bool = False) -> onnx.ModelProto:
    """Gives a model the body of its attention nodes, in place; a model without such nodes stays as it is.

    A body the model already has is replaced.

    Args:
        model: its opset of the default domain becomes the function's.
        loop: as for `attention_function`.
        half: likewise; one model's attention nodes are all of one type.

    Returns:
        The same model.

    Raises:
        ExportError: the model's opset is too old.
    """
    if not has_attention(model):
        return model
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    function = attention_function(loop, opsets.get("", opsets.get("ai.onnx", 0)), half)
    kept = [f for f in model.functions if (f.domain, f.name) != (DOMAIN, OP_TYPE)]
    del model.functions[:]
    model.functions.extend([*kept, function])
    if DOMAIN not in opsets:
        model.opset_import.append(helper.make_opsetid(DOMAIN, OP_VERSION))
    model.ir_version = max(model.ir_version, _MIN_IR_VERSION)
    return model


def has_attention(model: onnx.ModelProto) -> bool:
    """Whether a model holds an attention node."""
    return any(is_attention(node) for node in _all_nodes(model))


def is_attention(node: onnx.NodeProto) -> bool:
    """Whether a node is `polc::NeighborhoodAttention2D`."""
    return (node.domain, node.op_type) == (DOMAIN, OP_TYPE)


def register_schema() -> None:
    """Tells onnx the operator's signature and output shape, as torch.onnx needs to write the node.

    Calling it again does nothing.
    """
    if onnx.defs.has(OP_TYPE, DOMAIN):
        return
    schema, kind = onnx.defs.OpSchema, onnx.defs.OpSchema.AttrType
    definition = schema(
        OP_TYPE,
        DOMAIN,
        OP_VERSION,
        doc="Neighbourhood attention on [B, H, W, heads, dim] with the window shifted inwards at borders.",
        inputs=[schema.FormalParameter(name, "T") for name in _INPUTS[:3]]
        + [schema.FormalParameter(_INPUTS[3], "tensor(float)")],
        outputs=[schema.FormalParameter("out", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "Type of q, k, v and the output.")],
        attributes=[
            schema.Attribute("kernel_size", kind.INT, "Side of the neighbourhood, odd.", required=True),
            schema.Attribute("scale", kind.FLOAT, "Factor on q.k before the bias.", required=True),
            *(
                schema.Attribute(name, kind.STRING, "For TensorRT's parser.", required=False)
                for name in PLUGIN_ATTRIBUTES
            ),
        ],
    )
    definition.set_type_and_shape_inference_function(_output_is_like_q)
    onnx.defs.register_schema(definition)
    # A schema with a Python callback that outlives the interpreter crashes the process (onnx issue 7508).
    atexit.register(onnx.defs.deregister_schema, OP_TYPE, OP_VERSION, DOMAIN)


def _output_is_like_q(context: shape_inference.InferenceContext) -> None:
    query = context.get_input_type(0)
    if query is not None:
        context.set_output_type(0, query)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nested(model.graph.node)
    for function in model.functions:
        yield from _nested(function.node)


def _nested(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nested(graph.node)


@dataclass(frozen=True)
class _Axis:
    """Rows or columns cut in tiles of T; the last tile slides back to end with the axis.

    T*T and P*P count the queries and keys of a two-dimensional tile row by row; `query` and `key` give the
    position of each along this axis.
    """

    count: Value  # scalar
    query: Value  # [count, T*T], clamped into the axis
    key: Value  # [count, P*P], clamped into the axis
    pattern: Value  # [count], 0..3: first, interior, last but one, last tile
    visible: Value  # bool [4, T*T, P*P]: does the query see the key along this axis
    offset: Value  # [T*T, P*P]: key - query + k - 1, clamped to 0..2k-2, the same in every tile
    home: Value  # [L]: the tile that holds position i,
    slot: Value  # [L]: and where in it, 0..T-1


@dataclass(frozen=True)
class _Task:
    """What both variants of the body share: sizes, the cut into tiles, the bias, where to gather."""

    b: GraphBuilder
    q: Value  # [B, H*W*heads, dim]
    k: Value
    v: Value
    batch: Value
    heads: Value
    dim: Value
    tile: Value  # T
    area: Value  # T*T
    patch_area: Value  # P*P
    rows: _Axis
    columns: _Axis
    bias: Value  # [4, columns, heads, T*T, P*P], by pattern of the row of tiles
    scale: Value
    half: bool
    query_row: Value  # [rows, T*T]: the row's part of the index into [H*W*heads],
    query_column: Value  # [columns, heads, T*T]: the column's and head's part
    key_row: Value  # [rows, P*P]
    key_column: Value  # [columns, heads, P*P]

    @staticmethod
    def of(b: GraphBuilder, half: bool) -> _Task:
        """Writes the part of the body before the attention itself."""
        shape = b.op("Shape", b.input("q"))
        batch, height, width, heads, dim = (shape.take(i) for i in range(5))
        kernel, scale = b.attribute("kernel_size", "int"), b.attribute("scale", "float")
        scale = scale.cast(onnx.TensorProto.FLOAT16) if half else scale
        tile = b.op("Max", kernel // 2 + 1, _LEAST_TILE, name="tile")
        patch = b.op("Add", tile, kernel - 1, name="patch")
        query_slot, key_slot = _slots(b, tile), _slots(b, patch)
        rows, columns = (
            _cut(b, length, tile, kernel, query_slot[axis], key_slot[axis])
            for axis, length in enumerate((height, width))
        )
        head = b.op("Range", 0, heads, 1).expand(1)  # [heads, 1]
        q, k, v = (b.input(name).reshape(batch, -1, dim) for name in _INPUTS[:3])
        return _Task(
            b=b,
            q=q,
            k=k,
            v=v,
            batch=batch,
            heads=heads,
            dim=dim,
            tile=tile,
            area=tile * tile,
            patch_area=patch * patch,
            rows=rows,
            columns=columns,
            bias=_bias(b, heads, kernel, rows, columns),
            scale=scale,
            half=half,
            query_row=rows.query * (width * heads),
            query_column=columns.query.expand(1) * heads + head,
            key_row=rows.key * (width * heads),
            key_column=columns.key.expand(1) * heads + head,
        )


@dataclass(frozen=True)
class _Tiled:
    """The result in tiles, [.., columns, heads, T*T, dim], with the steps of its leading axes in vectors."""

    values: Value
    batch_step: Value
    row_step: Value

    def untile(self, task: _Task) -> None:
        """Writes `out` [B, H, W, heads, dim]: one Gather from the flattened tiles."""
        b, rows, columns = task.b, task.rows, task.columns
        sample = b.op("Range", 0, task.batch, 1).expand(1, 2, 3) * self.batch_step  # [B, 1, 1, 1]
        row = rows.home * self.row_step + rows.slot * task.tile  # [H]
        column = columns.home * (task.heads * task.area) + columns.slot  # [W]
        head = b.op("Range", 0, task.heads, 1) * task.area  # [heads]
        place = (sample + row.expand(1, 2)) + (column.expand(1) + head)  # [B, H, W, heads]
        b.op("Gather", self.values.reshape(-1, task.dim), place, name="out", axis=0)


def _slots(b: GraphBuilder, side: Value) -> tuple[Value, Value]:
    """Row and column, [side*side] each, of the places of a square counted row by row."""
    place = b.op("Range", 0, side * side, 1)
    row = place // side
    return row, place - row * side


def _cut(
    b: GraphBuilder, length: Value, tile: Value, kernel: Value, query_slot: Value, key_slot: Value
) -> _Axis:
    """Cuts an axis in tiles."""
    last = length - 1
    count = (last + tile) // tile
    index = b.op("Range", 0, count, 1)
    first = (index * tile).clip(0, length - tile)  # [count]; 0 if the axis is shorter than a tile
    query = first.expand(1) + query_slot  # beyond the axis if that is shorter than a tile; never untiled
    key = first.expand(1) + (key_slot - kernel // 2)  # beyond the axis at its borders; masked

    # One tile to stand for each pattern; tiles that coincide on a short axis are the same pattern twice.
    example = (count * [0, 0, 1, 1] + [0, 1, -2, -1]).clip(0, count - 1)
    query_of = query.take(example).expand(2)  # [4, T*T, 1]
    key_of = key.take(example).expand(1)  # [4, 1, P*P]
    start = (query_of - kernel // 2).clip(0, length - kernel)
    position = b.op("Range", 0, length, 1)
    home = position // tile
    return _Axis(
        count=count,
        query=b.op("Min", query, last),
        key=key.clip(0, last),
        pattern=b.op("Min", index, 1) * b.op("Max", index - count + 4, 1),
        visible=(key_of >= start) & (key_of < start + kernel) & (key_of < length),
        offset=(key_slot - query_slot.expand(1) + kernel // 2).clip(0, (kernel - 1) * 2),
        home=home,
        slot=position - first.take(home),
    )


def _bias(b: GraphBuilder, heads: Value, kernel: Value, rows: _Axis, columns: _Axis) -> Value:
    """The position bias, [4, columns, heads, T*T, P*P], very low where a query does not see a key."""
    table = b.input("rpb").reshape(heads, -1)  # [heads, (2k-1)*(2k-1)]
    bias = table.take(rows.offset * (kernel * 2 - 1) + columns.offset, axis=1)  # [heads, T*T, P*P]
    visible = rows.visible.expand(1) & columns.visible  # [4, 4, T*T, P*P], by both axes' patterns
    masked = b.op("Where", visible.expand(2), bias, _MASKED)  # [4, 4, heads, T*T, P*P]
    return b.op("Gather", masked, columns.pattern, name="bias", axis=1)


def _attend_by_rows(task: _Task) -> _Tiled:
    """A Loop over rows of tiles, so that only one row's scores are in memory: values [rows, B, ..]."""
    b = task.b
    inner_bias = task.bias.take(_INTERIOR)  # [columns, heads, T*T, P*P]; most rows share it without a copy
    is_interior = b.op("Equal", task.rows.pattern, _INTERIOR)  # [rows]

    def with_bias(row: Value, scores: Value) -> Value:
        with b.subgraph() as same:
            same_scores = scores + inner_bias
        with b.subgraph() as own:
            own_scores = scores + task.bias.take(task.rows.pattern.take(row))
        return b.op(
            "If",
            is_interior.take(row),
            then_branch=helper.make_graph(same, "interior", [], [_floats(same_scores)]),
            else_branch=helper.make_graph(own, "border", [], [_floats(own_scores)]),
        )

    row, going = b.input("row"), b.input("going")
    with b.subgraph() as body:
        query = task.query_column + task.query_row.take(row)  # [columns, heads, T*T]
        key = task.key_column + task.key_row.take(row)  # [columns, heads, P*P]
        values = _attend(task, query, key, lambda scores: with_bias(row, scores))
        going_on = b.op("Identity", going)
    graph = helper.make_graph(
        body,
        "row_of_tiles",
        [
            helper.make_tensor_value_info(row.name, onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info(going.name, onnx.TensorProto.BOOL, []),
        ],
        [
            helper.make_tensor_value_info(going_on.name, onnx.TensorProto.BOOL, []),
            _floats(values, onnx.TensorProto.FLOAT16 if task.half else onnx.TensorProto.FLOAT),
        ],
    )
    row_size = task.columns.count * task.heads * task.area
    return _Tiled(
        values=b.op("Loop", task.rows.count, None, name="tiles", body=graph),
        batch_step=row_size,
        row_step=row_size * task.batch,
    )


def _attend_at_once(task: _Task) -> _Tiled:
    """All tiles in one go: values [B, rows*columns, ..]."""
    query = (task.query_row.expand(1, 2) + task.query_column).reshape(-1, task.heads, task.area)
    key = (task.key_row.expand(1, 2) + task.key_column).reshape(-1, task.heads, task.patch_area)
    bias = task.bias.take(task.rows.pattern).reshape(-1, task.heads, task.area, task.patch_area)
    row_size = task.columns.count * task.heads * task.area
    return _Tiled(
        values=_attend(task, query, key, lambda scores: scores + bias),
        batch_step=row_size * task.rows.count,
        row_step=row_size,
    )


def _attend(task: _Task, query: Value, key: Value, with_bias: Callable[[Value], Value]) -> Value:
    """softmax(scale * q k^T + bias) v, [B, tiles, heads, T*T, dim]; indices [tiles, heads, T*T or P*P]."""
    b = task.b
    q, k, v = task.q.take(query, axis=1), task.k.take(key, axis=1), task.v.take(key, axis=1)
    # ONNX Runtime makes one multiplication of scaling, transposing and multiplying.
    scores = b.op("MatMul", q * task.scale, k.permute(0, 1, 2, 4, 3))
    biased = with_bias(scores.cast(onnx.TensorProto.FLOAT) if task.half else scores)
    weights = b.op("Softmax", biased, axis=-1)
    return b.op("MatMul", weights.cast(onnx.TensorProto.FLOAT16) if task.half else weights, v)


def _floats(value: Value, kind: int = onnx.TensorProto.FLOAT) -> onnx.ValueInfoProto:
    """The declaration of a subgraph's output of tiles, the shape left to the runtime."""
    return helper.make_tensor_value_info(value.name, kind, [None] * 5)
