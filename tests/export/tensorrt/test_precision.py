"""Precision: which layers are kept in fp32, what the inspector's text says, when an engine is refused."""

import json

import pytest

from polc_export.tensorrt.inspector import read_layers
from polc_export.tensorrt.precision import BuiltLayer, NetworkLayer, judge, kept_layers
from polc_runtime.errors import ExportError

HALF, FLOAT = frozenset({"fp16"}), frozenset({"fp32"})


def layer(kind, inputs=("fp16",), outputs=("fp16",), shape=False):
    return NetworkLayer(kind.lower(), kind, inputs, outputs, shape)


def kept(layers, strongly_typed=False):
    return [found.name for found in kept_layers(layers, strongly_typed)]


def test_before_tensorrt_10_normalisation_softmax_and_reductions_are_pinned():
    layers = [
        layer(kind) for kind in ("CONVOLUTION", "NORMALIZATION", "SOFTMAX", "REDUCE", "MATRIX_MULTIPLY")
    ]
    assert kept(layers) == ["normalization", "softmax", "reduce"]


def test_from_tensorrt_10_on_the_file_alone_says_what_is_fp32():
    layers = [layer("SOFTMAX"), layer("ELEMENTWISE", ("fp32", "fp32"), ("fp32",))]
    assert kept(layers, strongly_typed=True) == ["elementwise"]


def test_what_the_exporter_keeps_in_fp32_is_pinned():
    layers = [
        layer("ELEMENTWISE", ("fp32", "fp32"), ("fp32",)),
        layer("ELEMENTWISE", ("fp16", "fp32"), ("fp16",)),
        layer("UNARY", ("fp32",), ("fp32",)),
    ]
    assert kept(layers) == ["elementwise", "unary"]


def test_a_network_that_does_not_tell_the_types_of_its_file_is_not_pinned_as_a_whole():
    single = ("fp32",)
    layers = [layer(kind, single, single) for kind in ("CONVOLUTION", "SOFTMAX", "MATRIX_MULTIPLY")]
    casts = [layer("CAST", single, ("fp16",)), layer("CONSTANT", (), ("fp16",))]
    assert kept([*casts, *layers]) == ["softmax"]
    assert kept([*casts, *layers], strongly_typed=True) == ["convolution", "softmax", "matrix_multiply"]


@pytest.mark.parametrize("kind", ["CONSTANT", "SHAPE", "CAST", "GATHER", "SHUFFLE", "PLUGIN_V2", "PLUGIN_V3"])
def test_layers_that_compute_nothing_in_float_are_left_alone(kind):
    assert kept([layer(kind, ("fp32",), ("fp32",))]) == []


def test_integers_and_shapes_are_left_alone():
    layers = [
        layer("REDUCE", ("int32",), ("int32",)),
        layer("ELEMENTWISE", ("fp32",), ("fp32",), shape=True),
    ]
    assert kept(layers) == []


def tensor(written):
    return {"Name": "t", "Location": "Device", "Dimensions": [1, 3, 192, 192], "Format/Datatype": written}


def entry(name, kind, inputs, outputs, **more):
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [tensor(text) for text in inputs],
        "Outputs": [tensor(text) for text in outputs],
        **more,
    }


def inspected(*entries):
    return json.dumps({"Layers": list(entries), "Bindings": ["image", "y"]})


WRITTEN = ("Row major linear FP32", "Row major linear FP16 format")
UNKNOWN = "N/A due to dynamic shapes"

OF_8_6 = inspected(
    entry(
        "Reformatting CopyNode for Input Tensor 0 to conv0",
        "Reformat",
        ["Row major linear FP32"],
        ["Channel major FP16 format where channel % 8 == 0"],
        ParameterType="Reformat",
        Origin="REFORMAT",
        TacticValue="0x00000000000003ea",
    ),
    entry(
        "conv0 + relu0",
        "CaskConvolution",
        ["Channel major FP16 format where channel % 8 == 0"],
        ["Channel major FP16 format where channel % 8 == 0"],
        ParameterType="Convolution",
        Weights={"Type": "Half", "Count": 4800},
        Bias={"Type": "Half", "Count": 32},
        TacticName="sm80_xmma_fprop_implicit_gemm_indexed_f16f16_f16f16_f16_nhwckrsc_nhwc_tilesize64x64x64",
        TacticValue="0xda0aad4bc0d0ed8b",
    ),
    entry("softmax0", "CudaSoftMax", ["Row major linear FP32"], ["Row major linear FP32"]),
    entry(
        "{ForeignNode[a...b]}",
        "Myelin",
        ["Row major linear FP16 format"],
        ["Row major linear FP16 format"],
        TacticValue="0x0000000000000000",
    ),
)

OF_8_6_DYNAMIC = inspected(
    entry("conv0", "CaskConvolution", [UNKNOWN], [UNKNOWN], Weights={"Type": "Half", "Count": 9408}),
    entry(
        "conv1",
        "CaskConvolution",
        [UNKNOWN],
        [UNKNOWN],
        Weights={"Type": "Float", "Count": 9408},
        TacticName="sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc",
    ),
    entry(
        "matmul0",
        "CaskGemmMatrixMultiply",
        [UNKNOWN],
        [UNKNOWN],
        TacticName="sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize64x64x64",
    ),
    entry("{ForeignNode[a...b]}", "Myelin", [UNKNOWN], [UNKNOWN]),
)

OF_10 = inspected(
    entry(
        "gemm0_myl0_1",
        "gemm",
        ["Half", "Half"],
        ["Half"],
        TacticName="sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64",
        StreamId=0,
        Metadata="[ONNX Layer: /0/MatMul]",
    ),
    entry(
        "__myl_CastMeanSubMul_myl0_2",
        "kgen",
        ["Half"],
        ["Half"],
        TacticName="__myl_CastMeanSubMul_0x9f16ab77bf16c3d2",
        Metadata="[ONNX Layer: /0/LayerNormalization]",
    ),
    entry(
        "matMul1_myl0_0",
        "gemm",
        ["Float", "Float"],
        ["Float"],
        TacticName="sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32x32x64_stage3",
    ),
    entry("shape_call", "shape_call", ["Int64"], ["Int64"]),
)


def test_the_text_of_8_6_is_read():
    assert read_layers(OF_8_6) == [
        BuiltLayer("conv0 + relu0", "CaskConvolution", HALF),
        BuiltLayer("softmax0", "CudaSoftMax", FLOAT),
        BuiltLayer("{ForeignNode[a...b]}", "Myelin", HALF),
    ]


def test_where_formats_are_left_out_weights_and_kernels_tell():
    conv0, conv1, matmul, opaque = read_layers(OF_8_6_DYNAMIC)
    assert conv0.types == HALF and conv1.types == FLOAT and conv1.tf32
    assert matmul.types == HALF and matmul.is_matrix
    assert opaque.types == frozenset()


def test_the_text_of_10_is_read():
    half, norm, tf32, shapes = read_layers(OF_10)
    assert half.types == HALF and half.is_matrix and norm.types == HALF and not norm.is_matrix
    assert tf32.types == FLOAT and tf32.tf32 and shapes.types == frozenset()


def test_hashes_in_the_names_of_kernels_mean_nothing():
    text = inspected(entry("k", "kgen", ["Float"], ["Float"], TacticName="__myl_AddMul_0x9f16abf16"))
    assert read_layers(text)[0].types == FLOAT


def test_tensors_with_a_field_for_the_type_alone_are_read():
    split = {"Name": "t", "Format": "Row major linear", "DataType": "Half"}
    text = inspected({"Name": "g", "LayerType": "gemm", "Inputs": [split], "Outputs": [split]})
    assert read_layers(text)[0].types == HALF


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": ["conv0", "conv1"]}'])
def test_text_without_details_is_an_error(text):
    with pytest.raises(ExportError, match="engine inspector gives"):
        read_layers(text)


def built(name, types, kind="gemm", tf32=False):
    return BuiltLayer(name, kind, frozenset(types), tf32)


def test_an_engine_that_is_silently_fp32_is_refused():
    layers = [built("a", ["fp32"]), built("b", ["fp32"]), built("c", ["fp16"])]
    verdict = judge(layers, "fp16", exact=False)
    assert verdict.problems == ("asked for in fp16, but only 1 of 3 layers that were looked at run in fp16",)


def test_half_of_the_matrix_layers_is_enough_and_other_layers_do_not_count():
    layers = [
        built("a", ["fp16"]),
        built("b", ["fp32"]),
        *(built(f"n{i}", ["fp32"], "kgen") for i in range(9)),
    ]
    verdict = judge(layers, "fp16", exact=False)
    assert verdict.problems == () and verdict.matrix_layers == {"fp16": 1, "fp32": 1}
    assert verdict.summary() == "layers: 1 fp16, 10 fp32; matrix products: 1 of 2 in fp16, 0 unread"


def test_without_a_matrix_layer_the_others_decide_if_all_of_them_can_be_read():
    assert "only 0 of 1" in judge([built("b", ["fp32"], "kgen")], "fp16", exact=False).problems[0]
    for more in ([], [built("b", ["fp32"], "kgen")]):
        verdict = judge([built("a", [], "Myelin"), *more], "fp16", exact=False)
        assert verdict.problems == () and verdict.is_unread


def test_float32_at_the_edges_of_an_opaque_piece_says_nothing_of_its_inside():
    pieces = [entry("{ForeignNode[a...b]}", "Myelin", ["Row major linear FP32"], [kind]) for kind in WRITTEN]
    single, mixed = read_layers(inspected(*pieces))
    assert single.types == frozenset() and mixed.types == {"fp32", "fp16"}
    assert judge([single], "fp16", exact=False).problems == ()
    assert judge([mixed], "fp32", exact=False).problems != ()


@pytest.mark.parametrize("reduced", ["fp16", "bf16", "int8", "fp8"])
@pytest.mark.parametrize("exact", [True, False])
def test_an_fp32_engine_has_nothing_below_fp32(reduced, exact):
    layers = [built("a", ["fp32"]), built("b", [reduced, "fp32"], "kgen")]
    (problem,) = judge(layers, "fp32", exact).problems
    assert problem == "1 layers run below fp32, in an engine asked for in fp32: b"


def test_tf32_is_refused_in_the_entropy_path_alone():
    layers = [built("a", ["fp32"], tf32=True)]
    assert judge(layers, "fp32", exact=False).problems == ()
    assert judge(layers, "fp32", exact=True).problems == (
        "1 layers run in TF32, in an engine of the entropy path: a",
    )


def test_a_kept_layer_in_half_is_refused_unless_a_conversion_was_fused_into_it():
    kept_names = {"norm", "scale", "softmax"}

    def problems(name, types):
        layers = [built("conv", ["fp16"]), built(name, types, "PointWise")]
        return judge(layers, "fp16", False, kept_names).problems

    assert problems("norm + scale", ["fp16"]) == (
        "1 layers run below fp32, though they are kept in fp32: norm + scale",
    )
    assert problems("PWN(PWN(norm), scale)", ["fp16"]) != ()
    assert problems("norm + cast", ["fp16"]) == () and problems("softmax", ["fp16", "fp32"]) == ()
    assert problems("softmax", []) == ()


def test_a_message_names_a_few_layers_and_counts_the_rest():
    (problem,) = judge([built(f"l{i}", ["fp16"]) for i in range(5)], "fp32", exact=True).problems
    assert problem.endswith("l0, l1, l2 and 2 more")
