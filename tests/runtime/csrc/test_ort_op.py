"""ONNX Runtime's operator against the portable body that an exported model carries under the same name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from polc_export.onnx.attention_function import DOMAIN, OP_TYPE, OP_VERSION, add_attention_function

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
Arrays = dict[str, np.ndarray]


def session(
    model: bytes | str, library: Path | None, threads: int = 2, **options: Any
) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    for name, value in options.items():
        setattr(settings, name, value)
    if library:
        settings.register_custom_ops_library(str(library))
    return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def layer(
    kernel: int,
    dim: int,
    inputs: str = "q k v rpb",
    function: bool = True,
    dtype: int = FLOAT,
    bias_dtype: int = FLOAT,
) -> bytes:
    """A model of one attention node, all sizes dynamic; only one of floats has a portable body."""
    image = ["batch", "height", "width", "heads", "dim"]
    node = helper.make_node(
        OP_TYPE, inputs.split(" "), ["out"], domain=DOMAIN, kernel_size=kernel, scale=dim**-0.5
    )

    declare = helper.make_tensor_value_info
    declared = [declare(name, dtype, image) for name in "qkv"]
    if "rpb" in inputs:
        declared.append(declare("rpb", bias_dtype, ["heads", "side", "side"]))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, OP_VERSION)]
    graph = helper.make_graph([node], "attention", declared, [declare("out", dtype, image)])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return (add_attention_function(model) if function else model).SerializeToString()


def random_inputs(shape: tuple[int, ...], kernel: int) -> Arrays:
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(shape, np.float32) for name in "qkv"}
    side = 2 * kernel - 1
    return inputs | {"rpb": rng.standard_normal((shape[3], side, side), np.float32)}


@pytest.mark.parametrize("kernel", [1, 3, 7, 9])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 16), (2, 3, 3, 2, 8), (1, 20, 45, 5, 16), (2, 31, 8, 3, 24)], ids=str
)
def test_equals_the_portable_body(op_library: Path, shape: tuple[int, ...], kernel: int) -> None:
    model, inputs = layer(kernel, shape[4]), random_inputs(shape, kernel)
    native, portable = (session(model, library).run(None, inputs)[0] for library in (op_library, None))
    np.testing.assert_allclose(native, portable, rtol=0, atol=4e-6)


@pytest.mark.parametrize("inputs", ["q k v", "q k v "], ids=["omitted", "empty"])
def test_a_bias_left_out_is_a_bias_of_zeros(op_library: Path, inputs: str) -> None:
    arrays = random_inputs((1, 9, 20, 2, 16), 5)
    arrays["rpb"][:] = 0
    expected = session(layer(5, 16), op_library).run(None, arrays)[0]
    del arrays["rpb"]
    out = session(layer(5, 16, inputs, function=False), op_library).run(None, arrays)[0]
    np.testing.assert_array_equal(out, expected)


def test_the_number_of_threads_changes_no_bit(op_library: Path) -> None:
    inputs = random_inputs((1, 50, 70, 4, 16), 7)
    one, two, five = (session(layer(7, 16), op_library, n).run(None, inputs)[0] for n in (1, 2, 5))
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(five, one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"k": np.zeros((1, 4, 5, 2, 16), np.float32)}, r"one shape .*got \[1,5,5,2,16\], \[1,4,5,2,16\]"),
        ({"rpb": np.zeros((2, 5, 5), np.float32)}, r"rpb of shape \[2,13,13\], got \[2,5,5\]"),
    ],
)
def test_wrong_shapes_are_named(op_library: Path, change: Arrays, said: str) -> None:
    inputs = random_inputs((1, 5, 5, 2, 16), 7) | change
    with pytest.raises(Exception, match=said):  # onnxruntime's classes share no public base
        session(layer(7, 16), op_library).run(None, inputs)


def test_an_even_kernel_is_refused(op_library: Path) -> None:
    with pytest.raises(Exception, match="odd kernel_size from 1 to 255, got 4"):
        session(layer(4, 16, function=False), op_library).run(None, random_inputs((1, 5, 5, 2, 16), 4))


def halves(inputs: Arrays, names: str) -> Arrays:
    return {n: x.astype(np.float16) if n in names.split() else x for n, x in inputs.items()}


@pytest.mark.parametrize("bias", ["float", "half"])
def test_float16_is_computed_in_float_and_rounded_once(op_library: Path, bias: str) -> None:
    given = halves(random_inputs((2, 19, 37, 3, 16), 7), "q k v rpb" if bias == "half" else "q k v")
    model = layer(7, 16, function=False, dtype=HALF, bias_dtype=HALF if bias == "half" else FLOAT)
    out = session(model, op_library).run(None, given)[0]
    floats = {name: x.astype(np.float32) for name, x in given.items()}
    expected = session(layer(7, 16), op_library).run(None, floats)[0]
    np.testing.assert_array_equal(out, expected.astype(np.float16))


def test_every_float16_value_passes_through_unchanged(op_library: Path) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 64, 64, 1, 16)
    ones = np.ones_like(values)
    model = layer(1, 16, "q k v", function=False, dtype=HALF)  # a kernel of 1: each query takes its own value
    out = session(model, op_library).run(None, {"q": ones, "k": ones, "v": values})[0]
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("types", ["float", "half", "half with a float bias"])
@pytest.mark.parametrize("kernel", [3, 7])
def test_the_operator_for_cuda_devices_gives_the_same_with_emulated_kernels(
    op_library: Path, emulated_ort_library: Path, kernel: int, types: str
) -> None:
    names = {"float": "", "half": "q k v rpb", "half with a float bias": "q k v"}[types]
    given = halves(random_inputs((2, 10, 21, 2, 16), kernel), names)
    kinds = [HALF if name in names.split() else FLOAT for name in ("q", "rpb")]
    model = layer(kernel, 16, function=False, dtype=kinds[0], bias_dtype=kinds[1])
    out, expected = (session(model, lib).run(None, given)[0] for lib in (emulated_ort_library, op_library))
    tolerance = 4e-6 if kinds[0] == FLOAT else 2e-3  # tensor cores take the weights as halves
    np.testing.assert_allclose(out.astype(np.float32), expected.astype(np.float32), atol=tolerance)


def test_the_operator_for_cuda_devices_names_what_it_does_not_take(emulated_ort_library: Path) -> None:
    with pytest.raises(Exception, match="NeighborhoodAttention2D: expected a dim of 16, 32 or 64, got 8"):
        session(layer(7, 8), emulated_ort_library).run(None, random_inputs((1, 5, 5, 2, 8), 7))


def test_a_session_takes_the_operators_from_one_library_alone(
    op_library: Path, emulated_ort_library: Path
) -> None:
    settings = ort.SessionOptions()
    for library in (op_library, emulated_ort_library):
        settings.register_custom_ops_library(str(library))
    with pytest.raises(Exception, match="Domain already set in registry"):
        ort.InferenceSession(layer(7, 16), settings, providers=["CPUExecutionProvider"])


def feeds(graph: str) -> Arrays:
    """Inputs of the very small codec's graphs, of two sizes to a batch's two qualities."""
    rng = np.random.default_rng(0)
    quality = np.array([2.5, 7], np.float32)
    if graph == "analysis":
        return {"image": rng.random((2, 3, 192, 256), np.float32), "quality": quality}
    return {
        "y_hat": np.round(3 * rng.standard_normal((2, 32, 12, 16))).astype(np.float32),
        "quality": quality,
    }


@pytest.mark.parametrize("graph", ["analysis", "synthesis"])
def test_an_exported_graph_runs_on_the_kernel_and_agrees(
    op_library: Path, tiny_bundle: Path, tmp_path: Path, graph: str
) -> None:
    path = str(tiny_bundle / "graphs" / f"{graph}.onnx")
    nodes = [node.op_type for node in onnx.load(path).graph.node].count(OP_TYPE)
    native = session(path, op_library, enable_profiling=True, profile_file_prefix=str(tmp_path / "profile"))
    outputs = native.run(None, feeds(graph))
    for out, expected in zip(outputs, session(path, None).run(None, feeds(graph)), strict=True):
        assert np.abs(out - expected).max() < 1e-5 * expected.std()
    events = json.loads(Path(native.end_profiling()).read_text())
    ran = Counter(e["args"]["op_name"] for e in events if e.get("cat") == "Node" and "op_name" in e["args"])
    assert ran[OP_TYPE] == nodes > 0
    assert "Loop" not in ran


def test_images_of_another_size_follow_in_the_same_session(op_library: Path, tiny_bundle: Path) -> None:
    path = str(tiny_bundle / "graphs" / "analysis.onnx")
    native, portable = session(path, op_library), session(path, None)
    for height, width in ((192, 192), (256, 320), (192, 448)):
        image = np.random.default_rng(height).random((1, 3, height, width), np.float32)
        inputs = {"image": image, "quality": np.ones(1, np.float32)}
        for out, expected in zip(native.run(None, inputs), portable.run(None, inputs), strict=True):
            assert np.abs(out - expected).max() < 1e-5 * expected.std()
