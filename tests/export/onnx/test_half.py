"""Float16 graphs: what stays in float32, what becomes float16, and that ONNX Runtime runs them."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from polc_export.onnx.attention_function import has_attention, is_attention
from polc_export.onnx.half import KEPT_OPS, halve_attention, to_half
from polc_export.onnx.passes import attributes, element_types
from polc_runtime.backends.op_library import find_op_library

HALVED = ["hyper_analysis", "synthesis", "task_convnext", "task_scenes-1", "pixels_scenes-1"]
UNITS = {"batch": 2, "h": 3, "w": 5}


@pytest.fixture(scope="module")
def load(task_bundle):
    return lambda name: onnx.load(task_bundle / f"graphs/{name}.onnx")


@pytest.fixture(scope="module")
def halved(load):
    """Float16 graphs by name, each made once; not to be changed."""
    return cache(lambda name: to_half(load(name)))


def inputs_of(model, seed=0):
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.input:
        parts = [(d.dim_param or str(d.dim_value)).rpartition("*") for d in value.type.tensor_type.shape.dim]
        shape = [int(factor or 1) * (UNITS.get(unit) or int(unit)) for factor, _, unit in parts]
        feeds[value.name] = rng.random(shape, np.float32)
    if "quality" in feeds:
        feeds["quality"] = np.array([1.25, 7.5], np.float32)
    return feeds


def run(model, feeds, native=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if native:
        options.register_custom_ops_library(str(find_op_library().path))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("name", HALVED)
def test_inputs_and_outputs_stay_float32_and_weights_take_half_the_bytes(load, halved, name):
    model, half = load(name), halved(name)
    onnx.checker.check_model(half, full_check=True)
    for ours, theirs in zip(
        (*half.graph.input, *half.graph.output), (*model.graph.input, *model.graph.output), strict=True
    ):
        assert ours == theirs
    assert half.metadata_props == model.metadata_props
    products = {node.input[1] for node in half.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")}
    kinds = {t.data_type for t in half.graph.initializer if t.name in products}
    assert kinds == {TensorProto.FLOAT16}
    assert half.ByteSize() < 0.75 * model.ByteSize()


@pytest.mark.parametrize("name", HALVED)
def test_kept_operators_compute_in_float32(halved, name):
    half = halved(name)
    types = element_types(half)
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    found = set()
    for node in half.graph.node:
        if node.op_type in KEPT_OPS:
            found.add(node.op_type)
            assert TensorProto.FLOAT16 not in [types.get(name) or stored[name] for name in node.input]
    assert "LayerNormalization" in found or name == "pixels_scenes-1"


@pytest.mark.parametrize("name", ["hyper_analysis", "synthesis", "task_convnext"])
def test_gains_are_computed_from_the_quality_in_float32(halved, name):
    half = halved(name)
    types, reached = element_types(half), {"quality"}
    stored = {tensor.name for tensor in half.graph.initializer}
    powers = 0
    for node in half.graph.node:
        if reached & set(node.input) and set(node.input) <= reached | stored:
            is_end = node.op_type == "Cast" and attributes(node)["to"] == TensorProto.FLOAT16
            assert is_end or types[node.output[0]] != TensorProto.FLOAT16
            powers += node.op_type == "Pow"
            reached |= set(node.output) if not is_end else set()
    assert powers > 1


@pytest.mark.parametrize("name", HALVED)
def test_no_value_is_rounded_between_two_kept_operators(halved, name):
    half = halved(name)
    types = element_types(half)
    casts = {node.output[0]: node.input[0] for node in half.graph.node if node.op_type == "Cast"}
    for output, source in casts.items():
        if types[output] == TensorProto.FLOAT and source in casts:
            assert types.get(casts[source]) != TensorProto.FLOAT


@pytest.mark.parametrize("native", [False, True], ids=["portable", "native"])
@pytest.mark.parametrize("name", HALVED)
def test_it_runs_with_and_without_the_operator_library(load, halved, name, native):
    if native and not find_op_library().registers:
        pytest.skip(f"no operator library: {find_op_library().reason}")
    model = load(name)
    feeds = inputs_of(model)
    for ours, theirs in zip(run(halved(name), feeds, native), run(model, feeds, native), strict=True):
        assert ours.dtype == np.float32 and not np.array_equal(ours, theirs)
        assert np.abs(ours - theirs).max() < 1e-2 * max(1, theirs.std())


@pytest.mark.parametrize("name", HALVED[:4])
def test_attention_takes_float16_where_it_is_asked_to_and_rpb_stays_float32(load, name):
    half = to_half(load(name))
    before = sum(node.op_type == "Cast" for node in half.graph.node)
    halve_attention(half.graph)
    nodes = [node for node in half.graph.node if is_attention(node)]
    assert nodes and has_attention(half)
    assert sum(node.op_type == "Cast" for node in half.graph.node) == before - 4 * len(nodes)
    del half.functions[:]
    stored = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    made_by = {output: node for node in half.graph.node for output in node.output}
    for node in nodes:
        assert stored[node.input[3]] == TensorProto.FLOAT
        assert all(made_by[name].op_type != "Cast" for name in node.input[:3])


def test_a_value_that_was_never_float32_keeps_its_cast():
    """Cast(bool to float32) before a kept operator is no pair of casts to leave out."""
    nodes = [
        helper.make_node("Less", ["x", "limit"], ["below"], name="less"),
        helper.make_node("Cast", ["below"], ["as_float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["as_float"], ["count"], name="sum"),
    ]
    x, count = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [4]), ("count", [1]))
    )
    limit = numpy_helper.from_array(np.array([2.5], np.float32), "limit")
    graph = helper.make_graph(nodes, "counting", [x], [count], [limit])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8))
    onnx.checker.check_model(half, full_check=True)
    (found,) = run(half, {"x": np.arange(4, dtype=np.float32)})
    assert found.tolist() == [3]


def test_divisive_normalisation_of_large_values_does_not_overflow():
    """x / sqrt(b + G x^2) of values whose squares float16 does not have."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])
    constants = {
        "two": np.float32(2),
        "gamma": np.float32([[0.5, 0.1], [0.2, 0.4]])[:, :, None, None],
        "beta": np.float32([1, 2]),
        "scale": np.eye(2, dtype=np.float32)[:, :, None, None],
    }
    nodes = [
        helper.make_node("Conv", ["x", "scale"], ["a"]),
        helper.make_node("Pow", ["a", "two"], ["square"]),
        helper.make_node("Conv", ["square", "gamma", "beta"], ["norm"]),
        helper.make_node("Sqrt", ["norm"], ["root"]),
        helper.make_node("Div", ["a", "root"], ["y"]),
    ]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [out], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feeds = {"x": np.random.default_rng(0).uniform(-2000, 2000, (1, 2, 4, 4)).astype(np.float32)}
    half = to_half(model)
    np.testing.assert_allclose(run(half, feeds)[0], run(model, feeds)[0], rtol=2e-3, atol=2e-3)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert types["scale"] == TensorProto.FLOAT16 and types["gamma"] == types["beta"] == TensorProto.FLOAT
