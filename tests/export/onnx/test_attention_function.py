"""The portable attention body against golden vectors and a float64 computation by definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from polc_export.onnx.attention_function import (
    DOMAIN,
    MIN_OPSET,
    OP_TYPE,
    OP_VERSION,
    add_attention_function,
    attention_function,
)
from polc_runtime.errors import ExportError

GOLDEN_CASES = range(14)
VARIANTS = pytest.mark.parametrize("loop", [True, False], ids=["loop", "no-loop"])
LEVELS = ort.GraphOptimizationLevel


def node(inputs: str, output: str, kernel: int, dim: int) -> onnx.NodeProto:
    return helper.make_node(
        OP_TYPE, inputs.split(), [output], domain=DOMAIN, kernel_size=kernel, scale=float(dim) ** -0.5
    )


def model(nodes: list[onnx.NodeProto], tables: list[str] | None = None, opset: int = 20) -> onnx.ModelProto:
    """A model without the function; every size is dynamic."""

    def floats(name: str, shape: list[str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    image = ["batch", "height", "width", "heads", "dim"]
    inputs = [floats(name, image) for name in "qkv"]
    inputs += [floats(name, ["heads", f"{name}_side", f"{name}_side"]) for name in tables or ["rpb"]]
    graph = helper.make_graph(nodes, "attention", inputs, [floats("out", image)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one_layer(kernel: int, dim: int, loop: bool = True, opset: int = 20) -> onnx.ModelProto:
    return add_attention_function(model([node("q k v rpb", "out", kernel, dim)], opset=opset), loop)


def run(
    proto: onnx.ModelProto,
    inputs: dict[str, np.ndarray],
    level: ort.GraphOptimizationLevel = LEVELS.ORT_ENABLE_ALL,
) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def random_inputs(
    batch: int, height: int, width: int, heads: int, dim: int, kernel: int, seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = {name: rng.standard_normal((batch, height, width, heads, dim), np.float32) for name in "qkv"}
    return inputs | {"rpb": rng.standard_normal((heads, 2 * kernel - 1, 2 * kernel - 1), np.float32)}


def window(query: int, length: int, kernel: int) -> range:
    start = max(min(query - kernel // 2, length - kernel), 0)
    return range(start, min(start + kernel, length))


def by_definition(q: np.ndarray, k: np.ndarray, v: np.ndarray, rpb: np.ndarray, kernel: int) -> np.ndarray:
    """Query by query, in float64."""
    q, k, v, rpb = (x.astype(np.float64) for x in (q, k, v, rpb))
    height, width, dim = q.shape[1], q.shape[2], q.shape[4]
    out = np.empty_like(q)
    for row in range(height):
        for column in range(width):
            key_rows, key_columns = list(window(row, height, kernel)), list(window(column, width, kernel))
            keys, values = (x[:, key_rows][:, :, key_columns] for x in (k, v))
            bias_rows = [r - row + kernel - 1 for r in key_rows]
            bias_columns = [c - column + kernel - 1 for c in key_columns]
            logits = np.einsum("bhd,brchd->bhrc", q[:, row, column], keys) * dim**-0.5
            logits += rpb[:, bias_rows][:, :, bias_columns]
            weights = np.exp(logits - logits.max((2, 3), keepdims=True))
            weights /= weights.sum((2, 3), keepdims=True)
            out[:, row, column] = np.einsum("bhrc,brchd->bhd", weights, values)
    return out


@VARIANTS
@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_the_body_gives_the_golden_output(golden: Path, case: int, loop: bool) -> None:
    with np.load(golden / "na2d.npz") as arrays:
        _, _, dim, _, _, kernel = (int(n) for n in arrays[f"c{case}_cfg"])
        inputs = {name: arrays[f"c{case}_{name}"] for name in ("q", "k", "v", "rpb")}
        expected = arrays[f"c{case}_out"]
    np.testing.assert_allclose(run(one_layer(kernel, dim, loop), inputs), expected, rtol=0, atol=1e-5)


@VARIANTS
@settings(max_examples=80, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    dim=st.sampled_from([1, 4, 8, 16]),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    kernel=st.sampled_from([3, 5, 7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_body_is_right_for_every_size(
    loop: bool, batch: int, heads: int, dim: int, height: int, width: int, kernel: int, seed: int
) -> None:
    inputs = random_inputs(batch, height, width, heads, dim, kernel, seed)
    np.testing.assert_allclose(
        run(one_layer(kernel, dim, loop), inputs), by_definition(**inputs, kernel=kernel), rtol=0, atol=1e-5
    )


@VARIANTS
@pytest.mark.parametrize("kernel", [1, 9, 13])
@pytest.mark.parametrize("size", [(1, 1), (4, 9), (10, 27), (31, 8)])
def test_kernels_too_large_for_tiles_of_four_are_right_too(
    size: tuple[int, int], kernel: int, loop: bool
) -> None:
    inputs = random_inputs(2, *size, heads=2, dim=4, kernel=kernel)
    np.testing.assert_allclose(
        run(one_layer(kernel, 4, loop), inputs), by_definition(**inputs, kernel=kernel), rtol=0, atol=1e-5
    )


@VARIANTS
@pytest.mark.parametrize(("size", "kernel"), [((2, 3), 3), ((9, 14), 7), ((16, 5), 5), ((4, 9), 13)])
def test_the_body_for_float16_is_right_within_its_rounding(
    size: tuple[int, int], kernel: int, loop: bool
) -> None:
    inputs = random_inputs(2, *size, heads=2, dim=16, kernel=kernel)
    halves = {name: inputs[name].astype(np.float16) for name in "qkv"}
    proto = model([node("q k v rpb", "out", kernel, 16)])
    for value in (*proto.graph.input, *proto.graph.output):
        if value.name != "rpb":
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    add_attention_function(proto, loop, half=True)
    onnx.checker.check_model(proto, full_check=True)
    out = run(proto, halves | {"rpb": inputs["rpb"]})
    assert out.dtype == np.float16
    expected = by_definition(**halves, rpb=inputs["rpb"], kernel=kernel)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-2)


@VARIANTS
def test_one_function_serves_two_kernel_sizes_in_a_model(loop: bool) -> None:
    nodes = [node("q k v rpb7", "mid", 7, 8), node("mid k v rpb3", "out", 3, 8)]
    proto = add_attention_function(model(nodes, tables=["rpb7", "rpb3"]), loop)
    assert [f.name for f in proto.functions] == [OP_TYPE]
    inputs = random_inputs(1, 9, 13, heads=2, dim=8, kernel=7)
    rpb7 = inputs.pop("rpb")
    rpb3 = random_inputs(1, 1, 1, heads=2, dim=1, kernel=3, seed=1)["rpb"]
    middle = by_definition(**inputs, rpb=rpb7, kernel=7)
    expected = by_definition(middle, inputs["k"], inputs["v"], rpb3, kernel=3)
    np.testing.assert_allclose(run(proto, inputs | {"rpb7": rpb7, "rpb3": rpb3}), expected, rtol=0, atol=1e-5)


@VARIANTS
def test_optimisation_levels_agree(loop: bool) -> None:
    inputs = random_inputs(2, 13, 18, heads=3, dim=16, kernel=7)
    proto = one_layer(7, 16, loop)
    levels = (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_BASIC, LEVELS.ORT_ENABLE_ALL)
    off, basic, everything = (run(proto, inputs, level) for level in levels)
    np.testing.assert_allclose(basic, off, rtol=0, atol=2e-6)
    np.testing.assert_allclose(everything, off, rtol=0, atol=2e-6)


@VARIANTS
@pytest.mark.parametrize("opset", [MIN_OPSET, 17, 18, 20, 22])
def test_the_model_checks_and_runs_at_every_opset(opset: int, loop: bool) -> None:
    proto = one_layer(5, 4, loop, opset)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.functions[0].opset_import[0].version == opset
    inputs = random_inputs(1, 6, 11, heads=2, dim=4, kernel=5)
    np.testing.assert_allclose(run(proto, inputs), by_definition(**inputs, kernel=5), rtol=0, atol=1e-5)


def test_an_older_opset_is_refused() -> None:
    with pytest.raises(ExportError, match=f"opset {MIN_OPSET} or later, got 12"):
        attention_function(opset=12)


def test_the_body_without_a_loop_has_no_subgraph() -> None:
    function = attention_function(loop=False, opset=17)
    assert not any(a.type == onnx.AttributeProto.GRAPH for n in function.node for a in n.attribute)
    assert {n.op_type for n in function.node}.isdisjoint({"Loop", "If", "GatherND", "Mod", "CastLike"})


def test_a_model_without_attention_stays_as_it_is() -> None:
    proto = model([helper.make_node("Identity", ["q"], ["out"])])
    before = proto.SerializeToString()
    assert add_attention_function(proto) is proto
    assert proto.SerializeToString() == before


def test_adding_the_function_again_replaces_it() -> None:
    proto = one_layer(3, 4, loop=True)
    add_attention_function(proto, loop=False)
    assert len(proto.functions) == 1
    assert "Loop" not in {n.op_type for n in proto.functions[0].node}
    assert [(o.domain, o.version) for o in proto.opset_import if o.domain == DOMAIN] == [(DOMAIN, OP_VERSION)]


def test_attention_inside_a_branch_is_found() -> None:
    branch = helper.make_graph(
        [node("q k v rpb", "inner", 3, 4)],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, [None] * 5)],
    )
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("t", 9, [], [True]))
    choice = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    proto = add_attention_function(model([yes, choice]))
    assert [f.name for f in proto.functions] == [OP_TYPE]


def test_the_schema_registers_once_checks_the_node_and_infers_its_shape(tmp_path: Path) -> None:
    """In a process of its own: it must not change the other tests, and must end without a crash."""
    script = """
import sys, onnx
from polc_export.onnx.attention_function import register_schema
register_schema()
register_schema()
whole = onnx.load(sys.argv[1])
onnx.checker.check_model(whole, full_check=True)
node_only = onnx.ModelProto.FromString(whole.SerializeToString())
del node_only.functions[:]
onnx.checker.check_model(node_only, full_check=True)
inferred = onnx.shape_inference.infer_shapes(node_only, check_type=True, strict_mode=True)
mid = next(v for v in inferred.graph.value_info if v.name == "mid")
print(*(d.dim_param for d in mid.type.tensor_type.shape.dim))
node_only.graph.node[0].attribute.pop()
try:
    onnx.checker.check_model(node_only)
except onnx.checker.ValidationError as error:
    print("scale" in str(error))
"""
    layers = [node("q k v rpb", "mid", 3, 4), node("mid k v rpb", "out", 3, 4)]
    onnx.save(add_attention_function(model(layers)), tmp_path / "model.onnx")
    command = [sys.executable, "-c", script, str(tmp_path / "model.onnx")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["batch height width heads dim", "True"]
