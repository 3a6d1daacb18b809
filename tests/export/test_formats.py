"""Formats in bundles: what is written, what stays, what is refused, and what the validation notices."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from polc_export import ExportOptions, Formats, extend_bundle
from polc_export.bundle_folder import sha256
from polc_export.checks import Check, Checks, Least, sample_photo
from polc_export.formats import Added, add_formats
from polc_export.validation.codec import ROUND_TRIPS
from polc_export.validation.formats import CASES, MAX_PSNR, psnr, validate_formats
from polc_runtime import Bundle, Codec, ExportError
from polc_runtime.bundle import FORMATS, TENSORRT, TENSORRT_PLUGIN

EXACT = {"hyper_synthesis", *(f"context_{index}" for index in range(9))}
WITHOUT_ATTENTION = {*(f"context_{index}" for index in range(9)), "pixels_convnext", "pixels_scenes-1"}
BOTH = Formats(half=True, tensorrt=True)


def unvalidated(**formats):
    return ExportOptions(validate=False, formats=Formats(**formats))


def files_of(bundle):
    return {
        path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def extended(task_bundle, tmp_path_factory):
    """The tiny bundle with two tasks and every format, and the checks of the export."""
    out = tmp_path_factory.mktemp("variants") / "all.bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polc_export.validation.formats.CASES", CASES[:1])
        patch.setattr("polc_export.validation.formats.TASK_CASES", 1)
        patch.setattr("polc_export.validation.codec.ROUND_TRIPS", ROUND_TRIPS[:1])
        return extend_bundle(task_bundle, out, ExportOptions(formats=BOTH))


def test_every_graph_has_its_formats_and_no_more(extended, task_bundle):
    graphs = {(graph.name, graph.precision): graph for graph in extended[0].manifest.graphs}
    names = {graph.name for graph in Bundle.load(task_bundle).manifest.graphs}
    halves = names - EXACT
    assert graphs.keys() == {(name, "fp32") for name in names} | {(name, "fp16") for name in halves}
    for (name, precision), graph in graphs.items():
        stem = f"graphs/{name}" if precision == "fp32" else f"graphs/{name}.fp16"
        kinds = {TENSORRT} if name in WITHOUT_ATTENTION else {TENSORRT, TENSORRT_PLUGIN}
        assert graph.file == f"{stem}.onnx"
        assert {kind: stored.file for kind, stored in graph.formats.items()} == {
            kind: stem + FORMATS[kind] for kind in kinds
        }
    written = {stored.file for graph in graphs.values() for stored in graph.files()}
    assert written == {file for file in files_of(extended[0].path) if file.startswith("graphs/")}


def test_what_was_there_stays_as_it_was(extended, task_bundle):
    before, after = files_of(task_bundle), files_of(extended[0].path)
    del before["manifest.json"]
    assert {name: after[name] for name in before} == before
    old, new = Bundle.load(task_bundle).manifest, extended[0].manifest
    for key in ("name", "model", "fingerprint", "codec_id", "tasks", "entropy_sha256", "notes"):
        assert getattr(old, key) == getattr(new, key)
    assert new.validation[: len(old.validation)] == old.validation


def test_the_checks_are_in_the_manifest_with_their_bounds(extended):
    bundle, checks = extended
    recorded = {entry["name"]: entry for entry in bundle.manifest.validation}
    assert {check.name for check in checks} <= recorded.keys()
    assert recorded["fp16 synthesis.image PSNR"]["error"] > recorded["fp16 synthesis.image PSNR"]["limit"]
    assert recorded["fp16 synthesis.image PSNR"]["unit"] == "dB"
    for name in (
        "fp16 analysis.y",
        "fp16 analysis.z",
        "fp16 reconstruction PSNR",
        "fp16 decoded pixels that differ from the encoder's",
        "fp16 task_convnext.logits",
        "fp16 task_scenes-1 top-1 agreement with fp32, ties aside",
        "fp16 pixels_scenes-1 top-1 agreement with fp32, ties aside",
        "tensorrt context_8.means",
        "tensorrt fp16 synthesis.image PSNR",
        "tensorrt-plugin hyper_synthesis.params",
        "tensorrt-plugin fp16 analysis.y",
    ):
        assert recorded[name]["passed"] and recorded[name]["cases"] == 1
    assert not any(name.startswith("tensorrt-plugin context") for name in recorded)


def test_files_carry_their_facts_and_no_path_of_the_machine(extended):
    manifest = extended[0].manifest
    for graph in manifest.graphs:
        for stored in graph.files():
            data = (extended[0].path / stored.file).read_bytes()
            facts = {entry.key: entry.value for entry in onnx.load_from_string(data).metadata_props}
            assert facts["polc.graph"] == graph.name and facts["polc.codec_id"] == manifest.codec_id.hex()
            assert b"/home" not in data and b".py" not in data and b"site-packages" not in data


def test_a_codec_runs_in_float16(extended):
    photo = sample_photo()[:200, :230]
    with Codec(extended[0]) as whole, Codec.load(extended[0].path, precision="fp16") as half:
        data = half.compress(photo)
        np.testing.assert_array_equal(half.decompress(data), half.decompress(data))
        assert data != whole.compress(photo)
        pictures = [codec.decompress(data).astype(int) for codec in (half, whole)]
        assert 0 < np.abs(pictures[0] - pictures[1]).max() <= 2
        assert half.infer(half.compress(sample_photo()[:256, :256]), "convnext").shape == (10,)
        assert half.backend.describe()["precision"] == "fp16"


def test_a_bundle_that_has_them_all_is_left_alone(extended):
    lines, before = [], files_of(extended[0].path)
    same, checks = extend_bundle(extended[0].path, None, ExportOptions(formats=BOTH), lines.append)
    assert same.path == extended[0].path and checks == () and "holds these formats already" in lines[0]
    assert files_of(extended[0].path) == before


def test_only_what_is_missing_is_added(task_bundle, tmp_path):
    first, _ = extend_bundle(task_bundle, tmp_path / "half", unvalidated(half=True))
    assert all(graph.formats == {} for graph in first.manifest.graphs)
    before, lines = files_of(first.path), []
    second, _ = extend_bundle(
        first.path, None, ExportOptions(formats=BOTH, validate=False, force=True), lines.append
    )
    assert second.path == first.path
    after = files_of(first.path)
    assert all(after[name] == before[name] for name in before if name != "manifest.json")
    assert {line.partition(":")[0] for line in lines} == after.keys() - before.keys()
    assert all(name.endswith((".trt.onnx", ".plugin.onnx")) for name in after.keys() - before.keys())


def test_in_place_takes_force(task_bundle):
    with pytest.raises(ExportError, match=r"tasks.bundle exists; replace it with force=True"):
        extend_bundle(task_bundle, None, ExportOptions(formats=BOTH, validate=False))


def test_other_weights_fail_the_validation(extended, tmp_path, monkeypatch):
    """A wrong file of each kind, with its hash in the manifest: the check of that graph alone fails."""
    monkeypatch.setattr("polc_export.validation.formats.CASES", CASES[:1])
    folder = shutil.copytree(extended[0].path, tmp_path / "wrong")
    for file in ("analysis.fp16", "synthesis.trt", "hyper_synthesis.plugin", "task_convnext.fp16.plugin"):
        model = onnx.load(folder / f"graphs/{file}.onnx")
        weight = max(model.graph.initializer, key=lambda t: len(t.raw_data) * (t.data_type in (1, 10)))
        value = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array((value * 1.3).astype(value.dtype), weight.name))
        onnx.save(model, folder / f"graphs/{file}.onnx")
    document = json.loads((folder / "manifest.json").read_text())
    for graph in document["graphs"]:
        for entry in (graph, *graph["formats"].values()):
            entry["sha256"] = sha256(folder / entry["file"])
    (folder / "manifest.json").write_text(json.dumps(document))
    added = [
        Added("analysis", "fp16"),
        Added("synthesis", "fp16"),
        Added("synthesis", "fp32", TENSORRT),
        Added("hyper_analysis", "fp32", TENSORRT),
        Added("hyper_synthesis", "fp32", TENSORRT_PLUGIN),
        Added("synthesis", "fp32", TENSORRT_PLUGIN),
        Added("task_convnext", "fp16", TENSORRT_PLUGIN),
    ]
    checks = validate_formats(Bundle.load(folder), added, sample_photo())
    failed = {name for name, check in checks.items() if not check.passed}
    assert failed >= {
        "fp16 analysis.y",
        "tensorrt synthesis.image",
        "tensorrt-plugin hyper_synthesis.params",
        "tensorrt-plugin fp16 task_convnext.logits",
    }
    assert not failed & {
        "fp16 synthesis.image PSNR",
        "tensorrt hyper_analysis.z",
        "tensorrt-plugin synthesis.image",
    }
    with pytest.raises(ExportError, match=r"FAIL tensorrt synthesis\.image"):
        checks.require()


def test_a_graph_that_has_no_form_for_tensorrt_leaves_nothing(task_bundle, tmp_path):
    folder = shutil.copytree(task_bundle, tmp_path / "odd")
    model = onnx.load(folder / "graphs/context_3.onnx")
    gelu = next(node for node in model.graph.node if node.op_type == "Gelu")
    gelu.op_type = "Mish"
    del gelu.attribute[:]
    onnx.save(model, folder / "graphs/context_3.onnx")
    document = json.loads((folder / "manifest.json").read_text())
    for graph in document["graphs"]:
        graph["sha256"] = sha256(folder / graph["file"])
    (folder / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(ExportError, match=r"context_3 cannot be written in opset 17 .* Mish"):
        extend_bundle(folder, tmp_path / "out", unvalidated(tensorrt=True))
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_nothing_is_wanted_nothing_is_added(tiny_bundle, tmp_path):
    manifest = Bundle.load(tiny_bundle).manifest
    assert add_formats(tmp_path, manifest, Formats()) == (manifest, ())
    assert list(tmp_path.iterdir()) == [] and not Formats()


def test_psnr_is_that_of_the_definition():
    image = np.full((1, 3, 4, 4), 0.5, np.float32)
    assert psnr(image, image) == MAX_PSNR
    assert psnr(image + np.float32(0.1), image) == pytest.approx(20, abs=1e-3)
    assert np.isnan(psnr(image[:, :1], image))


def test_a_check_of_the_least_value_keeps_the_smallest_and_fails_below_its_limit():
    checks = Checks("fp16 ")
    for value in (61.5, 55.25, 80.0):
        checks.add_least("image PSNR", value, 50, "dB")
    (check,) = checks.values()
    assert check.passed and check.to_dict() == {
        "name": "fp16 image PSNR", "limit": 50, "unit": "dB", "error": 55.25, "cases": 3, "passed": True,
    }  # fmt: skip
    assert check.line() == "ok   fp16 image PSNR: 55.25 dB, least 50 (3 cases)"
    checks.add_least("image PSNR", 49.9, 50, "dB")
    assert not check.passed and check.line().startswith("FAIL fp16 image PSNR: 49.9 dB")
    nan = Least("x", 50, "dB")
    nan.add(float("nan"))
    assert not nan.passed and isinstance(nan, Check)
