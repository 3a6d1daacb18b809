"""Bundles and manifests: what is read, what is refused, each refusal one line that names the field."""

import copy
import hashlib
import json

import pytest

from polc_runtime import Bundle, BundleError, UsageError
from polc_runtime.bitstream.calibration import Tolerances
from polc_runtime.bitstream.plan import Hyper, Plane, Reach
from polc_runtime.bundle import (
    FORMAT_VERSION,
    Manifest,
    Preprocessing,
    SizeRule,
    StoredFile,
    Task,
    find_bundle,
)

FILES = {
    "graphs/context_0.onnx": b"a graph",
    "graphs/synthesis.onnx": b"another",
    "graphs/synthesis.fp16.onnx": b"a smaller one",
    "graphs/task_my-pets.onnx": b"a task",
    "graphs/pixels_my-pets.onnx": b"a baseline",
    "entropy.npz": b"tables",
}
INTERFACES = {
    "context_0": ({"params": ["batch", 8, "4*h", "4*w"]}, {"scales": ["batch", 16, "2*h", "2*w"]}),
    "synthesis": ({"y_hat": ["batch", 8, "4*h", "4*w"]}, {"image": ["batch", 3, "64*h", "64*w"]}),
    "task_my-pets": ({"y_hat": ["batch", 8, "4*h", "4*w"], "quality": ["batch"]}, {"logits": ["batch", 2]}),
    "pixels_my-pets": ({"image": ["batch", 3, "64*h", "64*w"]}, {"logits": ["batch", 2]}),
}


def sha256(file):
    return hashlib.sha256(FILES[file]).hexdigest()


def graph(file):
    name, *precision = file.removeprefix("graphs/").removesuffix(".onnx").split(".")
    inputs, outputs = INTERFACES[name]
    return {
        "name": name, "file": file, "sha256": sha256(file), "precision": (*precision, "fp32")[0], "opset": 20,
        "inputs": inputs, "outputs": outputs, "exact": name == "context_0", "parameters": 7,
    }  # fmt: skip


DOCUMENT = {
    "format": list(FORMAT_VERSION),
    "name": "small",
    "model": {"layers": 8},
    "coding": {
        "pad": {"multiple": 64, "min": 192},
        "latent": {"channels": 8, "stride": 16},
        "hyper": {"channels": 4, "stride": 64, "graph": "hyper"},
        "steps": [
            {"graph": "context_0", "channels": [0, 8], "positions": [[0, 0], [1, 1]]},
            {"graph": "context_1", "channels": [0, 3], "positions": [[0, 1], [1, 0]]},
            {"graph": "context_2", "channels": [3, 8], "positions": [[1, 0], [0, 1]]},
        ],
        "quality": {"range": [1, 8], "default": 3},
        "reach": {"y": 64, "z": 128, "image": 70, "min": 192},
        "macs": {"context_0": 12.5},
    },
    "fingerprint": "ab" * 32,
    "codec_id": "cd" * 32,
    "quality_range": [1, 8],
    "size": {"multiple": 64, "min": 192},
    "tolerances": [{"quality": 2.5, "exponents": [11, 12, 13]}],
    "variants": [
        {"name": "faces", "analysis": "analysis", "synthesis": "synthesis_faces", "codec_id": "ef" * 32}
    ],
    "graphs": [graph(file) for file in FILES if file.startswith("graphs/")],
    "entropy": {"file": "entropy.npz", "sha256": sha256("entropy.npz")},
    "tasks": [
        {
            "name": "my-pets", "family": "convnext_tiny", "kind": "classification",
            "graph": "task_my-pets", "pixels": "pixels_my-pets", "classes": ["cat", "dog"],
            "sizes": {"multiple": 4, "minimum": 8, "fixed": None, "extra": 0},
            "preprocessing": {
                "resize": 256, "crop": None, "interpolation": "bicubic",
                "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1],
            },
        }
    ],
    "validation": [{"name": "analysis.y", "error": 1e-6, "passed": True}],
    "tools": {"torch": "2.9"},
    "notes": ["untrained"],
}  # fmt: skip


def changed(value, *path):
    """The document with another value at a place."""
    document = copy.deepcopy(DOCUMENT)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def parse(document):
    return Manifest.from_json(document if isinstance(document, str) else json.dumps(document))


def write(folder, document=DOCUMENT, files=FILES):
    (folder / "graphs").mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def test_a_manifest_comes_back_from_its_text():
    manifest = parse(DOCUMENT)
    assert json.loads(manifest.to_json()) == DOCUMENT
    assert parse(manifest.to_json()) == manifest
    assert manifest.tasks == (
        Task(
            "my-pets", "convnext_tiny", "classification", ("cat", "dog"), SizeRule(minimum=8),
            Preprocessing(256, None, "bicubic", (0.5, 0.5, 0.5), (1, 1, 1)), pixels=True,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("version", [[1, 0], [1, 99], [1]])
def test_every_minor_version_is_read_and_unknown_keys_are_ignored(version):
    document = {**changed(version, "format"), "future": {"deep": [1]}}
    document["graphs"][0]["future"] = document["tasks"][0]["future"] = document["size"]["future"] = 1
    assert parse(document) == parse(DOCUMENT)


def test_a_bundle_from_before_tasks_has_none():
    document = {key: value for key, value in DOCUMENT.items() if key != "tasks"}
    assert parse(document).tasks == ()
    with pytest.raises(UsageError, match="bundle small has no tasks"):
        parse(document).task("x")


def test_an_unknown_task_lists_the_ones_there_are():
    assert parse(DOCUMENT).task("my-pets").graph == "task_my-pets"
    with pytest.raises(UsageError, match="no task 'x'; it has my-pets"):
        parse(DOCUMENT).task("x")


def test_a_higher_major_version_is_refused():
    with pytest.raises(BundleError, match=r"format 2, this runtime reads up to 1: upgrade polc"):
        parse(changed([2, 0], "format"))


TS = {"file": "graphs/context_0.ts", "sha256": "ef" * 32}
TRT = {"file": "graphs/context_0.trt.onnx", "sha256": "12" * 32}
PLUGIN = {"file": "graphs/context_0.plugin.onnx", "sha256": "34" * 32}


def with_formats(formats):
    return changed(formats, "graphs", 0, "formats")


def test_other_formats_of_a_graph_come_back_and_unknown_ones_are_ignored():
    manifest = parse(with_formats({"torchscript": TS, "later": {"deep": [1]}}))
    assert manifest.graphs[0].formats == {"torchscript": StoredFile(**TS)}
    assert json.loads(manifest.to_json()) == with_formats({"torchscript": TS})
    assert [stored.file for stored in manifest.graphs[0].files()] == ["graphs/context_0.onnx", TS["file"]]


def test_files_for_tensorrt_are_told_apart_in_both_precisions():
    formats = {"tensorrt": TRT, "tensorrt-plugin": PLUGIN}
    manifest = parse(with_formats(formats))
    assert manifest.graphs[0].formats == {name: StoredFile(**entry) for name, entry in formats.items()}
    assert json.loads(manifest.to_json()) == with_formats(formats)
    half = {"tensorrt": {**TRT, "file": "graphs/synthesis.fp16.trt.onnx"}}
    graph = parse(changed(half, "graphs", 2, "formats")).graph("synthesis", "fp16")
    assert graph.formats == {"tensorrt": StoredFile("graphs/synthesis.fp16.trt.onnx", "12" * 32)}


TASK, GRAPH = ("tasks", 0), ("graphs", 0)
CODING, FIRST = ("coding",), ("coding", "steps", 0)
SIZES, STEPS = (*TASK, "sizes"), (*TASK, "preprocessing")
HOSTILE = [
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "manifest.json is not an object"),
    (changed([], "format"), "format is not a version"),
    (changed([True], "format"), "format is not a version"),
    (changed(None, "name"), "name is missing"),
    (changed("abc", "fingerprint"), "fingerprint is not a SHA-256"),
    (changed([8, 1], *CODING, "quality", "range"), "quality: range is 8 to 1 with the default 3"),
    (changed([0, 8], *CODING, "quality", "range"), "quality: range is 0 to 8"),
    (changed([1, 300], *CODING, "quality", "range"), "quality: range is 1 to 300"),
    (changed([1, 7.9], *CODING, "quality", "range"), "range is 1 to 7.9, which are not multiples of 1/256"),
    (changed(9, *CODING, "quality", "default"), "with the default 9"),
    (changed([1, float("nan")], *CODING, "quality", "range"), "not JSON: NaN is no number of JSON"),
    (changed([1, 10**400], *CODING, "quality", "range"), "range is not 2 numbers"),
    (changed([1, True], *CODING, "quality", "range"), "range is not 2 numbers"),
    (changed([], "coding"), "coding is not usable"),
    (changed(None, *CODING, "pad"), "coding: pad is missing"),
    (changed(24, *CODING, "latent", "stride"), "pad is not made of multiples"),
    (changed(100, *CODING, "pad", "min"), "pad is not made of multiples"),
    (changed(64, *CODING, "latent", "stride"), "latents can have odd sides"),
    (changed(0, *CODING, "latent", "channels"), "channels is 0, expected 1 to"),
    (changed(None, *CODING, "hyper"), "hyper is null, but the steps have graphs"),
    (changed(3, *CODING, "hyper", "graph"), "graph is not usable"),
    (changed([], *CODING, "steps"), "steps is a list of 0, expected 1 to 64"),
    (changed([DOCUMENT["coding"]["steps"][0]] * 65, *CODING, "steps"), "steps is a list of 65"),
    (
        changed([0, 7], *FIRST, "channels"),
        "channel 7 is coded 0 times at the positions [0, 0], expected once",
    ),
    (changed([0, 9], *FIRST, "channels"), "channels is [0, 9], expected 2 whole numbers from 0 to 8"),
    (changed([4, 4], *FIRST, "channels"), "channels is 4 to 4, which holds none"),
    (changed("all", *FIRST, "positions"), "channel 0 is coded 2 times at the positions [0, 1]"),
    (changed([[0, 0], [0, 0], [1, 1]], *FIRST, "positions"), "channel 0 is coded 2 times at"),
    (changed([[0, 2]], *FIRST, "positions"), 'positions is neither "all" nor a list'),
    (changed([[False, True]], *FIRST, "positions"), 'positions is neither "all" nor a list'),
    (changed([[0.0, 0.0]], *FIRST, "positions"), 'positions is neither "all" nor a list'),
    (changed({"wave": 3}, *FIRST, "positions"), "positions is wave, which a newer polc reads"),
    (changed(None, *FIRST, "graph"), "steps is a mix"),
    (changed(-1, *CODING, "reach", "y"), "reach: y is -1"),
    (changed({"a": "b"}, *CODING, "macs"), "macs: a is not a number"),
    (changed([DOCUMENT["variants"][0]] * 2, "variants"), "variants is not a list of variants with"),
    (changed("../x", "variants", 0, "name"), "variants is not a list of variants with"),
    (changed({"a": {"b": []}}, "model", "more"), "model: more is no plain value"),
    (changed(0, "size", "multiple"), "size: multiple is 0, expected 1 to 4096"),
    (changed(32, "size", "multiple"), "size is {'multiple': 32, 'min': 192}, the coding plan has"),
    (changed("../evil.npz", "entropy", "file"), "entropy.file"),
    (changed({}, "graphs"), "graphs is not usable"),
    (changed(["x"], "graphs"), "graphs is not an object"),
    (changed("../../etc/passwd", *GRAPH, "file"), "no file name of a graph"),
    (changed("graphs/../x.onnx", *GRAPH, "file"), "no file name of a graph"),
    (changed("graphs/a\n.onnx", *GRAPH, "file"), "no file name of a graph"),
    (changed("int8", *GRAPH, "precision"), "context_0.onnx: precision is 'int8', known are fp32, fp16"),
    (changed("AB" * 32, *GRAPH, "sha256"), "sha256 is not a SHA-256"),
    (changed({"image": 3}, *GRAPH, "inputs"), "inputs is not a list of axes for each name"),
    (changed({"image": [-1]}, *GRAPH, "inputs"), "inputs is not a list of axes for each name"),
    (with_formats([]), "formats is not usable"),
    (with_formats({"torchscript": "x"}), "torchscript is not usable"),
    (
        with_formats({"torchscript": {**TS, "file": "graphs/../x.ts"}}),
        "no file name of a graph, graphs/NAME.ts",
    ),
    (
        with_formats({"torchscript": {**TS, "file": "graphs/x.onnx"}}),
        "no file name of a graph, graphs/NAME.ts",
    ),
    (
        with_formats({"tensorrt": {**TRT, "file": "graphs/context_0.onnx"}}),
        "no file name of a graph, graphs/NAME.trt.onnx",
    ),
    (
        with_formats({"tensorrt": PLUGIN}),
        "no file name of a graph, graphs/NAME.trt.onnx",
    ),
    (
        with_formats({"tensorrt-plugin": {**PLUGIN, "file": "graphs/../x.plugin.onnx"}}),
        "no file name of a graph, graphs/NAME.plugin.onnx",
    ),
    (
        with_formats({"tensorrt": {**TRT, "file": "graphs/x.y.trt.onnx"}}),
        "no file name of a graph, graphs/NAME.trt.onnx",
    ),
    (with_formats({"torchscript": {**TS, "sha256": "x"}}), "torchscript: sha256 is not a SHA-256"),
    (changed({"x": 1}, "tasks"), "tasks is not usable"),
    (changed([1], "tasks"), "tasks is not an object"),
    (changed(DOCUMENT["tasks"] * 2, "tasks"), "task my-pets is there twice"),
    (changed("../x", *TASK, "name"), "name is no name for a task"),
    (changed("", *TASK, "name"), "name is no name for a task"),
    (changed("analysis", *TASK, "graph"), "task my-pets: graph is 'analysis', known are task_my-pets"),
    (changed("analysis", *TASK, "pixels"), "pixels is 'analysis', known are pixels_my-pets"),
    (changed("detection", *TASK, "kind"), "kind is 'detection', known are classification, segmentation"),
    (changed([], *TASK, "classes"), "classes is a list of 0 names"),
    (changed(["a"] * 70_000, *TASK, "classes"), "classes is a list of 70000 names"),
    (changed(["a", 3], *TASK, "classes"), "classes is not a list of names"),
    (changed(["a", "b" * 1000], *TASK, "classes"), "classes is not a list of names"),
    (changed(None, *TASK, "sizes"), "task my-pets: sizes is missing"),
    (changed(0, *SIZES, "multiple"), "sizes: multiple is 0"),
    (changed(10**300, *SIZES, "minimum"), "sizes: minimum is 1000"),
    (changed([16], *SIZES, "fixed"), "fixed is neither null nor a height and a width"),
    (changed([16, -1], *SIZES, "fixed"), "fixed is neither null nor a height and a width"),
    (changed(-1, *SIZES, "extra"), "extra is -1, expected 0 to 64"),
    (changed(0, *STEPS, "resize"), "preprocessing: resize is 0"),
    (changed("256", *STEPS, "crop"), "preprocessing: crop is not usable"),
    (changed("../x", *STEPS, "interpolation"), "interpolation is '../x', known are nearest"),
    (changed([0, 0], *STEPS, "mean"), "mean is not 3 numbers"),
    (changed([1, 0, 1], *STEPS, "std"), "std is not positive"),
    (changed([{"deep": [[1]]}], "validation"), "validation: deep is no plain value"),
    (changed({"a": {}}, "tools"), "tools: a is no plain value"),
]


@pytest.mark.parametrize(("document", "said"), HOSTILE, ids=[said for _, said in HOSTILE])
def test_a_hostile_manifest_is_one_line(tmp_path, document, said):
    (tmp_path / "manifest.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(BundleError) as caught:
        Bundle.load(tmp_path)
    message = str(caught.value)
    assert (
        message.startswith(f"{tmp_path}: ") and said in message and "\n" not in message and len(message) < 400
    )


@pytest.mark.parametrize("missing", ["task_my-pets", "pixels_my-pets"])
def test_a_task_without_its_graph_is_refused(missing):
    graphs = [entry for entry in DOCUMENT["graphs"] if entry["name"] != missing]
    with pytest.raises(BundleError, match=f"task my-pets needs a graph {missing} with"):
        parse(changed(graphs, "graphs"))


def test_a_task_whose_graph_takes_something_else_is_refused():
    with pytest.raises(BundleError, match="needs a graph task_my-pets with logits, quality, y_hat"):
        parse(changed({"image": ["batch"]}, "graphs", 3, "inputs"))


def test_a_graph_is_found_in_the_precision_asked_for():
    manifest = parse(DOCUMENT)
    assert manifest.graph("synthesis").file == "graphs/synthesis.onnx"
    assert manifest.graph("synthesis", "fp16").file == "graphs/synthesis.fp16.onnx"
    assert manifest.graph("context_0", "fp16").precision == "fp32"  # exact: always fp32
    with pytest.raises(BundleError, match="task_my-pets is there in fp32, not in fp16"):
        manifest.graph("task_my-pets", "fp16")
    with pytest.raises(BundleError, match="no graph 'task_x': it was exported for decoding alone"):
        manifest.graph("task_x")


def test_a_file_is_read_only_if_its_hash_is_the_manifests(tmp_path):
    bundle = Bundle.load(write(tmp_path / "b"))
    assert bundle.graph("context_0") == b"a graph" and bundle.graph("synthesis", "fp16") == b"a smaller one"
    (bundle.path / "graphs/context_0.onnx").write_bytes(b"a graPh")
    with pytest.raises(BundleError, match=r"graphs/context_0.onnx is damaged or replaced \(its hash"):
        bundle.graph("context_0")


def test_a_file_that_is_missing_or_a_link_is_refused(tmp_path):
    bundle = Bundle.load(write(tmp_path / "b"))
    file = bundle.path / "graphs/context_0.onnx"
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"graphs/context_0.onnx does not exist or is not a regular file"):
        bundle.graph("context_0")
    file.symlink_to(tmp_path / "elsewhere")  # the right bytes, but from outside
    with pytest.raises(BundleError, match=r"graphs/context_0.onnx does not exist or is not a regular file"):
        bundle.graph("context_0")


def test_a_bundle_is_described_with_its_tasks_and_the_bytes_of_their_files(tmp_path):
    facts = Bundle.load(write(tmp_path / "b")).describe()
    (task,) = facts["tasks"]
    assert (task["name"], task["classes"], task["parameters"]) == ("my-pets", 2, 7)
    assert task["bytes"] == len(b"a task") + len(b"a baseline")
    assert [entry["bytes"] for entry in facts["graphs"]] == [7, 7, 13, 6, 10]
    json.dumps(facts)


def test_without_a_name_the_packaged_bundle_is_taken(tmp_path, monkeypatch):
    monkeypatch.delenv("POLC_BUNDLE", raising=False)
    assert Bundle.load().name == Bundle.load("nano").name == "polc-nano"
    monkeypatch.chdir(write(tmp_path / "nano").parent)
    assert Bundle.load("nano").name == "small", "a folder of that name goes first"
    monkeypatch.setenv("POLC_BUNDLE", str(tmp_path / "nano"))
    assert Bundle.load().name == "small"


def test_what_is_no_bundle_says_why(tmp_path, monkeypatch):
    monkeypatch.delenv("POLC_BUNDLE", raising=False)
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for place, said in {
        "": "the bundle's name is empty",
        tmp_path / "none": "no such folder",
        tmp_path / "file": "it is a file",
        tmp_path / "empty": "it has no manifest.json",
    }.items():
        with pytest.raises(BundleError, match=said):
            find_bundle(place)
    monkeypatch.setenv("POLC_BUNDLE", str(write(tmp_path / "b")))
    assert Bundle.load().name == "small"
    (tmp_path / "b/manifest.json").write_bytes(b"\xff")
    with pytest.raises(BundleError, match=r"manifest.json cannot be read"):
        Bundle.load()


@pytest.mark.parametrize(
    ("rule", "fits", "others", "wanted"),
    [
        (SizeRule(), [(12, 12), (4, 400)], [(2, 12), (12, 13)], "at least 64x64 pixels"),
        (SizeRule(minimum=24), [(24, 28)], [(20, 24)], "at least 384x384 pixels"),
        (SizeRule(multiple=8), [(16, 24)], [(12, 16)], "multiples of 128"),
        (SizeRule(fixed=(16, 24)), [(16, 24)], [(24, 16), (12, 12)], "of 384x256 pixels"),
    ],
)
def test_a_size_rule_tells_which_latents_fit_and_which_images_are_wanted(rule, fits, others, wanted):
    assert all(rule.admits(*grid) for grid in fits) and not any(rule.admits(*grid) for grid in others)
    assert wanted in rule.wanted(16)


@pytest.mark.parametrize(
    ("tolerances", "message"),
    [
        ([{"quality": 1, "exponents": [13] * 2}], "expected 3 whole numbers from 6 to 21"),
        ([{"quality": 1, "exponents": [22] * 3}], "expected 3 whole numbers from 6 to 21"),
        ([{"quality": "1", "exponents": [13] * 3}], "quality is not a number"),
        ([{"quality": q, "exponents": [13] * 3} for q in (4, 1)], "tolerances is not in order of quality"),
    ],
)
def test_tolerances_that_cannot_be_are_refused(tolerances, message):
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps({**DOCUMENT, "tolerances": tolerances}))


def test_a_bundle_without_tolerances_has_the_usual_ones():
    document = {key: value for key, value in DOCUMENT.items() if key != "tolerances"}
    assert Manifest.from_json(json.dumps(document)).tolerances == Tolerances.default(3)


NINE_STEPS = {"dims": [128, 192, 256, 320], "hyper_dim": 192, "depths": [2, 2, 6, 2], "hyper_depths": [2, 2],
              "kernel_size": 7, "hyper_kernel_size": 3}  # fmt: skip


def without_plan(model=NINE_STEPS, **changes):
    """A document of format 1.4, which states no coding plan."""
    tolerances = [{"quality": 1, "exponents": [13] * 9}]
    old = {**DOCUMENT, "format": [1, 4], "model": model, "tolerances": tolerances, **changes}
    return {key: value for key, value in old.items() if key not in ("coding", "variants")}


def test_a_bundle_that_states_no_plan_has_the_nine_steps():
    plan = parse(without_plan()).plan
    assert plan.fits_version_1 and len(plan.steps) == 9 and plan.latent == Plane(320, 16)
    assert plan.hyper == Hyper(192, 64, "hyper_synthesis")
    assert plan.reach == Reach(y=304, z=576, image=292, min=192)
    assert plan.exact_graphs == {"hyper_synthesis", *(f"context_{i}" for i in range(9))}
    assert (plan.quality.min, plan.quality.default, plan.quality.max) == (1, 4, 8)
    written = json.loads(parse(without_plan()).to_json())
    assert parse(written).plan == plan, "it is stated when the manifest is written again"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depths": [2, 2, 6]}, "depths is .*expected 4 whole numbers"),
        ({"depths": [2, 2, 6, -1]}, "depths is .*expected 4 whole numbers from 0 to"),
        ({"depths": [2, 2, 6, True]}, "depths is"),
        ({"depths": [2, 2, 6, 10**9]}, "depths is"),
        ({"hyper_depths": [2, 2.5]}, "hyper_depths is"),
        ({"kernel_size": "7"}, "kernel_size is"),
        ({"hyper_kernel_size": 0}, "hyper_kernel_size is"),
        ({"dims": [8, 1 << 40]}, "dims is not a list of widths"),
        ({"dims": [3]}, "dims: the latent needs at least 4 channels"),
        ({"hyper_dim": None}, "hyper_dim is missing"),
    ],
)
def test_dimensions_that_are_not_usable_are_named(change, said):
    with pytest.raises(BundleError, match=said):
        parse(without_plan({**NINE_STEPS, **change}))


@pytest.mark.parametrize("qualities", [[8, 1], [1, 8.5], [0.5, 8]])
def test_qualities_of_the_nine_steps_lie_within_one_and_eight(qualities):
    with pytest.raises(BundleError, match="are not a range within 1 to 8"):
        parse(without_plan(quality_range=qualities))


def test_a_variant_is_found_by_name_and_by_the_files_it_made():
    manifest = parse(DOCUMENT)
    (faces,) = manifest.variants
    assert manifest.variant("faces") == manifest.variant_of(b"\xef" * 4) == faces
    assert manifest.variant(None).synthesis == manifest.variant_of(b"\xcd" * 4).synthesis == "synthesis"
    assert manifest.variant_of(b"\x01" * 4) is None
    with pytest.raises(UsageError, match="no variant 'x'; it has faces"):
        manifest.variant("x")
