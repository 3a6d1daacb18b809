"""Bundles and manifests: what is read, what is refused, each refusal one line that names the field."""

import copy
import hashlib
import json

import pytest

from polc_runtime import Bundle, BundleError, UsageError
from polc_runtime.bitstream.calibration import DEFAULT_TOLERANCES
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
    "graphs/analysis.onnx": b"a graph",
    "graphs/synthesis.onnx": b"another",
    "graphs/synthesis.fp16.onnx": b"a smaller one",
    "graphs/task_my-pets.onnx": b"a task",
    "graphs/pixels_my-pets.onnx": b"a baseline",
    "entropy.npz": b"tables",
}
INTERFACES = {
    "analysis": ({"image": ["batch", 3, "64*h", "64*w"]}, {"y": ["batch", 8, "4*h", "4*w"]}),
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
        "inputs": inputs, "outputs": outputs, "exact": name == "analysis", "parameters": 7,
    }  # fmt: skip


DOCUMENT = {
    "format": list(FORMAT_VERSION),
    "name": "small",
    "model": {"dims": [8, 8, 8, 8], "hyper_dim": 4},
    "fingerprint": "ab" * 32,
    "codec_id": "cd" * 32,
    "quality_range": [1, 8],
    "size": {"multiple": 64, "min": 192},
    "tolerances": [{"quality": 2.5, "exponents": [11, 12, 13, 14, 15, 16, 17, 18, 19]}],
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


TS = {"file": "graphs/analysis.ts", "sha256": "ef" * 32}
TRT = {"file": "graphs/analysis.trt.onnx", "sha256": "12" * 32}
PLUGIN = {"file": "graphs/analysis.plugin.onnx", "sha256": "34" * 32}


def with_formats(formats):
    return changed(formats, "graphs", 0, "formats")


def test_other_formats_of_a_graph_come_back_and_unknown_ones_are_ignored():
    manifest = parse(with_formats({"torchscript": TS, "later": {"deep": [1]}}))
    assert manifest.graphs[0].formats == {"torchscript": StoredFile(**TS)}
    assert json.loads(manifest.to_json()) == with_formats({"torchscript": TS})
    assert [stored.file for stored in manifest.graphs[0].files()] == ["graphs/analysis.onnx", TS["file"]]


def test_files_for_tensorrt_are_told_apart_in_both_precisions():
    formats = {"tensorrt": TRT, "tensorrt-plugin": PLUGIN}
    manifest = parse(with_formats(formats))
    assert manifest.graphs[0].formats == {name: StoredFile(**entry) for name, entry in formats.items()}
    assert json.loads(manifest.to_json()) == with_formats(formats)
    half = {"tensorrt": {**TRT, "file": "graphs/synthesis.fp16.trt.onnx"}}
    graph = parse(changed(half, "graphs", 2, "formats")).graph("synthesis", "fp16")
    assert graph.formats == {"tensorrt": StoredFile("graphs/synthesis.fp16.trt.onnx", "12" * 32)}


TASK, GRAPH = ("tasks", 0), ("graphs", 0)
SIZES, STEPS = (*TASK, "sizes"), (*TASK, "preprocessing")
HOSTILE = [
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "manifest.json is not an object"),
    (changed([], "format"), "format is not a version"),
    (changed([True], "format"), "format is not a version"),
    (changed(None, "name"), "name is missing"),
    (changed("abc", "fingerprint"), "fingerprint is not a SHA-256"),
    (changed([8, 1], "quality_range"), "quality_range"),
    (changed([1, 8.5], "quality_range"), "quality_range 1.0..8.5 is not a range within 1..8"),
    (changed([1, float("nan")], "quality_range"), "not JSON: NaN is no number of JSON"),
    (changed([1, 10**400], "quality_range"), "quality_range is not 2 numbers"),
    (changed([1, True], "quality_range"), "quality_range is not 2 numbers"),
    (changed([8, 1 << 40], "model", "dims"), "model.dims"),
    (changed({"a": {"b": []}}, "model", "more"), "model: more is no plain value"),
    (changed(0, "size", "multiple"), "size: multiple is 0, expected 1 to 4096"),
    (changed(32, "size", "multiple"), "the bitstream has {'multiple': 64, 'min': 192}"),
    (changed("../evil.npz", "entropy", "file"), "entropy.file"),
    (changed({}, "graphs"), "graphs is not usable"),
    (changed(["x"], "graphs"), "graphs is not an object"),
    (changed("../../etc/passwd", *GRAPH, "file"), "no file name of a graph"),
    (changed("graphs/../x.onnx", *GRAPH, "file"), "no file name of a graph"),
    (changed("graphs/a\n.onnx", *GRAPH, "file"), "no file name of a graph"),
    (changed("int8", *GRAPH, "precision"), "analysis.onnx: precision is 'int8', known are fp32, fp16"),
    (changed("AB" * 32, *GRAPH, "sha256"), "sha256 is not a SHA-256"),
    (changed(1, *GRAPH, "exact"), "exact is not usable"),
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
        with_formats({"tensorrt": {**TRT, "file": "graphs/analysis.onnx"}}),
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
    assert manifest.graph("analysis", "fp16").precision == "fp32"  # exact: always fp32
    with pytest.raises(BundleError, match="task_my-pets is there in fp32, not in fp16"):
        manifest.graph("task_my-pets", "fp16")
    with pytest.raises(BundleError, match="no graph 'task_x'; it has analysis, synthesis, task_my-pets"):
        manifest.graph("task_x")


def test_a_file_is_read_only_if_its_hash_is_the_manifests(tmp_path):
    bundle = Bundle.load(write(tmp_path / "b"))
    assert bundle.graph("analysis") == b"a graph" and bundle.graph("synthesis", "fp16") == b"a smaller one"
    (bundle.path / "graphs/analysis.onnx").write_bytes(b"a graPh")
    with pytest.raises(BundleError, match=r"graphs/analysis.onnx is damaged or replaced \(its hash"):
        bundle.graph("analysis")


def test_a_file_that_is_missing_or_a_link_is_refused(tmp_path):
    bundle = Bundle.load(write(tmp_path / "b"))
    file = bundle.path / "graphs/analysis.onnx"
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"graphs/analysis.onnx does not exist or is not a regular file"):
        bundle.graph("analysis")
    file.symlink_to(tmp_path / "elsewhere")  # the right bytes, but from outside
    with pytest.raises(BundleError, match=r"graphs/analysis.onnx does not exist or is not a regular file"):
        bundle.graph("analysis")


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
    assert wanted in rule.wanted()


@pytest.mark.parametrize(
    ("tolerances", "message"),
    [
        ([{"quality": 1, "exponents": [13] * 8}], "expected 9 whole numbers from 6 to 21"),
        ([{"quality": 1, "exponents": [22] * 9}], "expected 9 whole numbers from 6 to 21"),
        ([{"quality": "1", "exponents": [13] * 9}], "quality is not a number"),
        ([{"quality": q, "exponents": [13] * 9} for q in (4, 1)], "tolerances is not in order of quality"),
    ],
)
def test_tolerances_that_cannot_be_are_refused(tolerances, message):
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps({**DOCUMENT, "tolerances": tolerances}))


def test_a_bundle_without_tolerances_has_the_usual_ones():
    document = {key: value for key, value in DOCUMENT.items() if key != "tolerances"}
    assert Manifest.from_json(json.dumps(document)).tolerances == DEFAULT_TOLERANCES
