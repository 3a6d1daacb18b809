"""Graphs for TensorRT: opset 17, what its parser supports and no more, and the same results."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from formula import formula_task
from onnx import TensorProto, helper, numpy_helper

from polc import preset
from polc.tasks.graphs import task_graphs
from polc_export.onnx.attention_function import OP_TYPE, add_attention_function, has_attention, is_attention
from polc_export.onnx.graph import export_graph
from polc_export.onnx.half import to_half
from polc_export.onnx.opset17 import IR_VERSION, RULES, lower_to_opset17
from polc_export.onnx.passes import attributes, element_types
from polc_export.tensorrt.graphs import inlined_graph, known_operators, plugin_graph, problems
from polc_runtime.backends.op_library import find_op_library
from polc_runtime.errors import ExportError

EXACT = ["hyper_synthesis", *(f"context_{index}" for index in range(9))]
OTHERS = ["analysis", "hyper_analysis", "synthesis", "task_convnext", "pixels_convnext"]
OTHERS += ["task_scenes-1", "pixels_scenes-1"]
FILES = [(name, "fp32") for name in EXACT + OTHERS] + [(name, "fp16") for name in OTHERS]
UNITS = {"batch": 2, "h": 4, "w": 5}
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}


@pytest.fixture(scope="module")
def load(task_bundle):
    @cache
    def loaded(name, precision):
        model = onnx.load(task_bundle / f"graphs/{name}.onnx")
        return to_half(model) if precision == "fp16" else model

    return loaded


def inputs_of(model, units):
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        parts = [(d.dim_param or str(d.dim_value)).rpartition("*") for d in value.type.tensor_type.shape.dim]
        shape = [int(factor or 1) * (units.get(unit) or int(unit)) for factor, _, unit in parts]
        feeds[value.name] = rng.random(shape, np.float32)
    if "quality" in feeds:
        feeds["quality"] = np.linspace(1.25, 7.5, units["batch"], dtype=np.float32)
    return feeds


def run(model, feeds, optimised=False, native=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if native:
        options.register_custom_ops_library(str(find_op_library().path))
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def assert_same_results(variant, model, precision, native=False):
    feeds = inputs_of(model, UNITS)
    expected = run(model, feeds, optimised=True)
    for ours, theirs in zip(run(variant, feeds, native=native), expected, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        assert np.abs(ours - theirs).max() <= TOLERANCE[precision] * max(1, theirs.std())


@pytest.mark.parametrize(("name", "precision"), FILES)
def test_the_inlined_graph_is_what_the_parser_reads_and_gives_the_same(load, name, precision):
    model = load(name, precision)
    variant = inlined_graph(model)
    onnx.checker.check_model(variant, full_check=True)
    assert [(entry.domain, entry.version) for entry in variant.opset_import] == [("", 17)]
    assert variant.ir_version == IR_VERSION == 8 and not variant.functions
    assert {node.op_type for node in variant.graph.node} <= known_operators() - {"Loop", "If", "Scan"}
    assert problems(variant) == [] and not has_attention(variant)
    names = [node.name for node in variant.graph.node]
    assert all(names) and len(set(names)) == len(names)
    interface = [*model.graph.input, *model.graph.output]
    assert [*variant.graph.input, *variant.graph.output] == interface
    assert variant.metadata_props == model.metadata_props
    assert_same_results(variant, model, precision)


@pytest.mark.parametrize(("name", "precision"), [f for f in FILES if f[0][:7] not in ("context", "pixels_")])
def test_the_plugin_graph_keeps_the_attention_as_nodes_alone(load, name, precision):
    model = load(name, precision)
    variant = plugin_graph(model)
    onnx.checker.check_model(variant)
    nodes = [node for node in variant.graph.node if is_attention(node)]
    assert nodes and len(nodes) == sum(is_attention(node) for node in model.graph.node)
    assert not variant.functions and problems(variant) == []
    types = element_types(add_attention_function(copied(variant), loop=False, half=precision == "fp16"))
    stored = {tensor.name: tensor.data_type for tensor in variant.graph.initializer}
    for node in nodes:
        assert attributes(node).keys() == {"kernel_size", "scale", "plugin_version", "plugin_namespace"}
        assert attributes(node)["plugin_version"] == b"1" and attributes(node)["plugin_namespace"] == b""
        assert {types[value] for value in (*node.input[:3], node.output[0])} == {
            TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
        }
        assert stored[node.input[3]] == TensorProto.FLOAT
    if precision == "fp16":
        assert_same_results(add_attention_function(copied(variant), half=True), model, precision)


@pytest.mark.skipif(not find_op_library().registers, reason=f"no operators: {find_op_library().reason}")
@pytest.mark.parametrize("name", ["analysis", "hyper_synthesis", "synthesis", "task_convnext"])
def test_the_plugin_graph_runs_with_the_operator_library_as_it_is(load, name):
    model = load(name, "fp32")
    assert_same_results(plugin_graph(model), model, "fp32", native=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tiny_swin", "tiny_deit"])
def test_other_families_have_the_variants_too(tiny_families, family):
    spec = task_graphs("x", formula_task(family, preset("polc-tiny")).eval())["task_x"]
    model = export_graph(spec, 20, {})
    for source, precision in ((model, "fp32"), (to_half(model), "fp16")):
        assert_same_results(inlined_graph(source), model, precision)
        assert problems(plugin_graph(source)) == []


def test_the_attention_nodes_pass_the_check_of_the_registered_operator(load):
    """As in a process that has traced a graph before; in one of its own, since the schema stays."""
    import subprocess
    import sys

    script = """
import onnx, sys
from polc_export.onnx.attention_function import register_schema
register_schema()
model = onnx.load_model_from_string(sys.stdin.buffer.read())
onnx.checker.check_model(model, full_check=True)
"""
    for precision in ("fp32", "fp16"):
        data = plugin_graph(load("hyper_analysis", precision)).SerializeToString()
        done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()


def copied(model):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def small(op, inputs, outputs, stored=(), **attrs):
    """A model of one node of opset 20: shapes by name, and stored tensors by name."""

    def values(shapes):
        return [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in shapes.items()]

    node = helper.make_node(op, [*inputs, *dict(stored)], list(outputs), name="node", **attrs)
    tensors = [numpy_helper.from_array(value, name) for name, value in dict(stored).items()]
    graph = helper.make_graph([node], "small", values(inputs), values(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


FLOAT, HALF, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
AXES = {"axes": np.array([1, -1])}
X, VARYING = {"x": (FLOAT, [2, 6, 3])}, {"x": (FLOAT, ["a", 6, "b"])}
LOWERED = {
    "gelu": small("Gelu", X, {"y": (FLOAT, [2, 6, 3])}),
    "gelu of varying sizes": small("Gelu", VARYING, {"y": (FLOAT, ["a", 6, "b"])}),
    "shape": small("Shape", VARYING, {"y": (INT, [3])}, start=0),
    "shape from": small("Shape", VARYING, {"y": (INT, [2])}, start=1),
    "shape to": small("Shape", VARYING, {"y": (INT, [1])}, start=0, end=1),
    "shape counted backwards": small("Shape", VARYING, {"y": (INT, [1])}, start=-2, end=-1),
    "split": small("Split", VARYING, {n: (FLOAT, ["a", 2, "b"]) for n in "pqr"}, axis=1, num_outputs=3),
    "mean": small("ReduceMean", VARYING, {"y": (FLOAT, ["a", 1, 1])}, AXES, keepdims=1),
    "greatest": small("ReduceMax", VARYING, {"y": (FLOAT, ["a"])}, AXES, keepdims=0),
    "sum": small("ReduceSum", VARYING, {"y": (FLOAT, ["a"])}, AXES, keepdims=0),
    "squeeze": small("Squeeze", {"x": (FLOAT, [2, 1, 3])}, {"y": (FLOAT, [2, 3])}),
    "cast": small("Cast", VARYING, {"y": (INT, ["a", 6, "b"])}, to=INT, saturate=1),
    "resize": small(
        "Resize", {"x": (FLOAT, [1, 1, 6, 3])}, {"y": (FLOAT, [1, 1, 9, 5])},
        {"roi": np.zeros(0, np.float32), "scales": np.zeros(0, np.float32), "sizes": np.array([1, 1, 9, 5])},
        mode="linear", coordinate_transformation_mode="align_corners", antialias=0,
        keep_aspect_ratio_policy="stretch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOWERED)
def test_an_operator_means_the_same_in_opset_17(case):
    model = LOWERED[case]
    lowered = copied(model)
    lower_to_opset17(lowered)
    onnx.checker.check_model(lowered, full_check=True)
    assert lowered.opset_import[0].version == 17 and problems(lowered) == []
    shape = [d.dim_value or 4 for d in model.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": 3 * np.random.default_rng(0).standard_normal(shape, np.float32)}
    for ours, theirs in zip(run(lowered, feeds), run(model, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_every_rule_is_tested():
    tested = {model.graph.node[0].op_type for model in LOWERED.values()}
    alike = {name for name in RULES if RULES[name] is RULES["ReduceMean"]}
    assert RULES.keys() <= tested | alike


def test_gelu_of_float16_stays_float16():
    model = small("Gelu", {"x": (HALF, ["a"])}, {"y": (HALF, ["a"])})
    lower_to_opset17(model)
    assert set(element_types(model).values()) == {HALF}
    x = np.linspace(-5, 5, 101).astype(np.float16)
    wide = LOWERED["gelu of varying sizes"]
    (expected,) = run(wide, {"x": np.tile(x.astype(np.float32), (1, 6, 1))})
    np.testing.assert_allclose(run(model, {"x": x})[0], expected[0, 0], atol=4e-3)


REFUSED = {
    "Gelu with an approximation": small("Gelu", X, {"y": (FLOAT, [2, 6, 3])}, approximate="tanh"),
    "Split of 6 into 4 parts": small(
        "Split", X, {n: (FLOAT, [2, None, 3]) for n in "pqrs"}, axis=1, num_outputs=4
    ),
    "Split of None into 2": small(
        "Split", VARYING, {n: (FLOAT, [None, 6, "b"]) for n in "pq"}, num_outputs=2
    ),
    "Squeeze of x, whose sizes vary": small("Squeeze", VARYING, {"y": (FLOAT, None)}),
    "Resize with antialias": small(
        "Resize", {"x": (FLOAT, [1, 1, 6, 3])}, {"y": (FLOAT, [1, 1, 3, 3])},
        {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 0.5, 1], np.float32)},
        mode="linear", antialias=1,
    ),
    "the value axes is computed": small(
        "ReduceMean", {**X, "axes": (INT, [1])}, {"y": (FLOAT, None)}, keepdims=0
    ),
    "No Op registered for Mish with domain_version of 17": small("Mish", X, {"y": (FLOAT, [2, 6, 3])}),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_has_no_form_in_opset_17_is_one_line(said):
    with pytest.raises(ExportError, match=f"small cannot be written .*{said}") as caught:
        lower_to_opset17(copied(REFUSED[said]))
    assert "\n" not in str(caught.value)


def test_faults_are_told_by_name():
    good = copied(LOWERED["sum"])
    lower_to_opset17(good)
    assert problems(good) == []
    assert problems(LOWERED["sum"]) == ["its opset is 20, not 17"]
    bad = small("ReduceSum", {**X, "axes": (INT, [1])}, {"y": (FLOAT, ["a", "b"])}, keepdims=0)
    lower_to_opset17(bad)
    assert problems(bad) == ["input 1 of ReduceSum is computed"]
    shape = copied(LOWERED["shape to"])
    shape.opset_import[0].version = 17
    assert problems(shape) == ["Shape has end, start, which the parser overlooks"]
    window = copied(good)
    window.graph.node[0].op_type = "HannWindow"
    assert "the operator HannWindow is not supported" in problems(window)
    body = helper.make_graph([], "body", [], [])
    branch = copied(good)
    branch.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=body, else_branch=body))
    assert "If has a subgraph" in problems(branch)


def test_the_list_of_operators_is_that_of_8_6():
    known = known_operators()
    assert len(known) == 145 and {"LayerNormalization", "Erf", "Softmax", "Range", "GatherND"} <= known
    assert known.isdisjoint({"Gelu", "Mish", "Attention", "CastLike", "HannWindow", OP_TYPE})


def test_integers_of_constants_are_stored_and_what_follows_from_them_is_computed_beforehand():
    nodes = [
        helper.make_node("Constant", [], ["three"], value_int=3),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Range", ["zero", "three", "one"], ["order"]),
        helper.make_node("Gather", ["x", "order"], ["y"], axis=0),
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, [size, 2]) for name, size in (("x", 5), ("y", 3))]
    graph = helper.make_graph(nodes, "constants", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    variant = inlined_graph(model)
    assert [node.op_type for node in variant.graph.node] == ["Gather"]
    assert {t.name: numpy_helper.to_array(t).tolist() for t in variant.graph.initializer} == {
        "order": [0, 1, 2]
    }
