"""`polc-bench latency` and `compare` on a small bundle: what they measure, write, print and refuse."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from polc_runtime.backends.op_library import find_op_library
from polc_runtime.bench.speed.flops import graph_flops
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.bundle import Bundle
from polc_runtime.cli.bench import main

CONTEXT = [f"context_{index}" for index in range(9)]
BOTH = {"hyper_synthesis", *CONTEXT, "symbols", "entropy", "pixels", "container", "other"}
FAST = ("--size", "192x192", "--threads", "1", "--attention", "portable", "--warmup", "1", "--repeats", "3")


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs `polc-bench` in `tmp_path`; exit code, output, error lines."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    return run


@pytest.fixture(scope="module")
def measured(tiny_bundle, tmp_path_factory):
    """A run's files, by suffix."""
    folder = tmp_path_factory.mktemp("latency")
    files = {suffix: folder / f"out{suffix}" for suffix in (".json", ".csv", ".png")}
    outputs = ("-o", files[".json"], "--csv", files[".csv"], "--plot", files[".png"])
    assert main([str(each) for each in ("latency", "--bundle", tiny_bundle, *FAST, *outputs)]) == 0
    return files


@pytest.fixture
def document(measured):
    return json.loads(measured[".json"].read_text())


def operations(document):
    return {each["operation"]: each for each in document["configurations"][0]["operations"]}


def test_document_says_what_was_measured_where(document, tiny_bundle):
    assert (document["command"], document["format"], document["failed"]) == ("latency", 1, [])
    assert document["machine"]["usable_processors"] >= 1 and document["tool"]["numpy"] == np.__version__
    manifest = Bundle.load(tiny_bundle).manifest
    assert document["bundle"]["codec_id"] == manifest.codec_id.hex()
    (each,) = document["configurations"]
    assert each["picture"] == {"name": "synthetic", "width": 192, "height": 192, "path": None}
    assert (each["threads"], each["batch"], each["attention"]) == (1, 1, "portable")
    assert each["described"]["attention"].startswith("portable") and each["described"]["threads"] == 1
    assert each["sgemm"]["samples"] == 4 and each["sgemm"]["best_gflops"] >= each["sgemm"]["limit_gflops"]


def test_stages_make_up_the_whole(document):
    found = operations(document)
    assert list(found) == ["compress", "decompress"]
    assert {stage["stage"] for stage in found["compress"]["stages"]} == {"analysis", *BOTH}
    assert {stage["stage"] for stage in found["decompress"]["stages"]} == {"synthesis", *BOTH}
    for operation in found.values():
        seconds = operation["seconds"]
        assert 0 < seconds["min"] <= seconds["median"] <= seconds["p90"] <= seconds["p99"]
        mean = sum(stage["seconds"]["mean"] for stage in operation["stages"])
        assert mean == pytest.approx(seconds["mean"])
        assert operation["images_per_second"] == pytest.approx(1 / seconds["median"])
        start = document["configurations"][0]["start_bytes"]
        if start is not None:
            assert operation["peak_bytes"] - start == operation["growth_bytes"] > 0
        assert operation["megapixels_per_second"] == pytest.approx(192 * 192 / 1e6 / seconds["median"])


def test_ratios_are_those_of_the_numbers_beside_them(document, tiny_bundle):
    model = Bundle.load(tiny_bundle).manifest.model
    sgemm = document["configurations"][0]["sgemm"]
    for name, transform in (("compress", "analysis"), ("decompress", "synthesis")):
        operation = operations(document)[name]
        stages = {stage["stage"]: stage for stage in operation["stages"]}
        ratios = operation["ratios"]
        for graph in (transform, "hyper_synthesis", *CONTEXT):
            stage, flops = stages[graph], graph_flops(model, graph, 192, 192)
            assert (stage["gemm_flops"], stage["attention_flops"]) == (flops.gemm, flops.attention)
            limit = flops.gemm / sgemm["limit_gflops"] / 1e9
            assert stage["ratio"]["median"] == pytest.approx(stage["seconds"]["median"] / limit)
            best = flops.gemm / sgemm["best_gflops"] / 1e9
            assert stage["ratio"]["best"] == pytest.approx(stage["seconds"]["min"] / best)
        whole, limit = operation["seconds"]["median"], stages[transform]["limit_seconds"]["median"]
        assert ratios[f"{transform}_to_limit"] == pytest.approx(stages[transform]["ratio"])
        assert ratios[f"whole_to_{transform}_limit"]["median"] == pytest.approx(whole / limit)
        entropy = stages["entropy"]["seconds"]["median"]
        assert ratios["entropy_to_whole"]["median"] == pytest.approx(entropy / whole)
        together = operation["context_steps"]
        assert together["gemm_flops"] == sum(stages[step]["gemm_flops"] for step in CONTEXT)
        assert together["seconds"]["mean"] == pytest.approx(
            sum(stages[step]["seconds"]["mean"] for step in CONTEXT)
        )
        assert ratios[f"context_and_hyper_to_{transform}"]["median"] > 0
        for stage in ("symbols", "entropy", "other"):
            assert stages[stage]["gemm_flops"] is None and stages[stage]["ratio"] is None


def test_csv_has_a_row_for_each_stage(measured, document):
    rows = list(csv.DictReader(measured[".csv"].open()))
    found = {(row["operation"], row["stage"]): row for row in rows}
    assert len(rows) == len(found) == sum(1 + len(each["stages"]) for each in operations(document).values())
    for name, operation in operations(document).items():
        for stage in ({"stage": "whole", "seconds": operation["seconds"]}, *operation["stages"]):
            row = found[name, stage["stage"]]
            assert float(row["median_seconds"]) == stage["seconds"]["median"]
            assert (row["width"], row["threads"], row["attention"]) == ("192", "1", "portable")
    ratio = operations(document)["compress"]["ratios"]["analysis_to_limit"]
    assert float(found["compress", "analysis"]["ratio_to_limit"]) == ratio["median"]
    assert found["compress", "entropy"]["gemm_flops"] == ""


def test_plot_is_a_picture_of_bars_in_colour(measured):
    pixels = np.asarray(Image.open(measured[".png"]).convert("RGB"))
    found = {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {(0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0xCC, 0x79, 0xA7)} <= found


def test_tables_show_the_ratios(bench, tiny_bundle):
    code, out, err = bench("latency", "--bundle", tiny_bundle, *FAST, "--operation", "compress")
    assert (code, err) == (0, [])
    assert "analysis, as a multiple of its GEMM limit" in out
    assert "whole, as a multiple of the analysis' GEMM limit" in out
    assert "context steps and hyper nets, of the analysis' time" in out
    assert "entropy coding, of the whole" in out
    assert "context steps" in out and "context_3" not in out and "decompress" not in out


def test_every_context_step_is_shown_when_asked_for(bench, tiny_bundle):
    code, out, err = bench("latency", "--bundle", tiny_bundle, *FAST, "--operation", "compress", "-v")
    assert code == 0 and "context_3" in out and "done" in err[0]


def test_batches_run_the_graphs_that_take_them(bench, task_bundle):
    options = ("--task", "convnext", "--batch", "1,3", "--json")
    code, out, _ = bench("latency", "--bundle", task_bundle, *FAST, *options)
    assert code == 0
    one, three = json.loads(out)["configurations"]
    assert [each["operation"] for each in one["operations"]] == ["compress", "decompress", "infer"]
    found = {each["operation"]: each for each in three["operations"]}
    assert list(found) == ["analysis", "synthesis", "infer"]
    model = Bundle.load(task_bundle).manifest.model
    for name in ("analysis", "synthesis"):
        stage = found[name]["stages"][0]
        assert stage["stage"] == name
        assert stage["gemm_flops"] == graph_flops(model, name, 192, 192, 3).gemm
        assert found[name]["images_per_second"] == pytest.approx(3 / found[name]["seconds"]["median"])
    for each in (one["operations"][2], three["operations"][2]):
        (task,) = [stage for stage in each["stages"] if stage["stage"] == "task_convnext"]
        assert task["gemm_flops"] is None and task["ratio"] is None
        assert "context_to_whole" in each["ratios"] and "entropy_to_whole" in each["ratios"]


def test_pictures_are_measured_at_their_own_sizes(bench, tiny_bundle, tmp_path):
    for name, size in (("a.png", (150, 70)), ("b.png", (200, 193))):
        Image.fromarray(synthetic_picture(size[1], size[0])).save(tmp_path / name)
    options = ("--threads", "1,2", "--attention", "portable", "--warmup", "1", "--repeats", "1", "--json")
    code, out, _ = bench("latency", "a.png", "b.png", "--bundle", tiny_bundle, *options)
    found = [
        (each["picture"]["name"], each["picture"]["width"], each["picture"]["height"], each["threads"])
        for each in json.loads(out)["configurations"]
    ]
    assert code == 0
    assert found == [(*a, n) for a in (("a.png", 150, 70), ("b.png", 200, 193)) for n in (1, 2)]


def test_both_attentions_are_measured_where_there_is_a_native_one(bench, tiny_bundle):
    options = ("--size", "192x192", "--threads", "1", "--warmup", "1", "--repeats", "1", "--json")
    code, out, _ = bench("latency", "--bundle", tiny_bundle, *options, "--operation", "compress")
    found = [each["described"]["attention"].split()[0] for each in json.loads(out)["configurations"]]
    assert code == 0
    assert found == (["native", "portable"] if find_op_library().registers else ["portable"])


def test_synthetic_picture_is_the_same_every_time_and_no_flat_one():
    pixels = synthetic_picture(70, 130)
    assert pixels.shape == (70, 130, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, synthetic_picture(70, 130))
    assert 10 < pixels.std() < 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "huge"), "expected sizes with commas between them, such as 768x512,256x256; got 'huge'"),
        (("--size", "0x64"), "expected sizes"),
        (("--threads", "0"), "expected whole numbers from 1"),
        (("--operation", "encode"), "expected some of compress, decompress, infer"),
        (("--attention", "fast"), "expected native, portable or both"),
        (("--operation", "infer"), "--operation infer needs --task"),
        (("--task", "pets"), "has no tasks"),
        (("--quality", "9"), "quality must lie between 1 and 8"),
        (("picture.png", "--size", "64x64"), "not both"),
        (("-",), "standard input"),
        (("none.png",), "none.png"),
        (("--plot", "a.txt"), ".png .svg .pdf"),
        (("--size", "65536x65536"), "too large"),
        (("--backend", "abacus", *FAST), "no backend is named 'abacus'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(bench, tiny_bundle, arguments, message):
    code, out, err = bench("latency", "--bundle", tiny_bundle, *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_native_attention_without_its_library_is_refused(bench, tiny_bundle, monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", "none")
    code, _, err = bench("latency", "--bundle", tiny_bundle, "--attention", "native")
    assert code == 2 and "POLC_OP_LIBRARY=none" in err[0]


def test_a_configuration_that_fails_leaves_the_others(bench, tiny_bundle):
    options = ("--backend", "onnxruntime,abacus", "--operation", "compress", "--json")
    code, out, err = bench("latency", "--bundle", tiny_bundle, *FAST, *options)
    document = json.loads(out)
    assert code == 2 and len(err) == 1 and "abacus" in err[0]
    assert [each["backend"] for each in document["configurations"]] == ["onnxruntime"]
    assert len(document["failed"]) == 1 and "abacus" in document["failed"][0]["error"]


def test_existing_files_are_kept(bench, tiny_bundle, tmp_path):
    (tmp_path / "out.json").write_text("mine")
    code, _, err = bench("latency", "--bundle", tiny_bundle, *FAST, "-o", "out.json")
    assert code == 2 and "out.json" in err[0] and (tmp_path / "out.json").read_text() == "mine"


def scaled(document, times, rate=1.0):
    """The document of a machine where all takes `times` as long, and products run `rate` times as fast."""
    changed = json.loads(json.dumps(document))
    for each in changed["configurations"]:
        each["sgemm"]["limit_gflops"] *= rate
        for operation in each["operations"]:
            for entry in (operation, *operation["stages"]):
                entry["seconds"] = {name: times * value for name, value in entry["seconds"].items()}
    return changed


@pytest.fixture
def pair(document, tmp_path):
    """Writes two documents, b changed; their paths."""

    def write(changed):
        paths = tmp_path / "a.json", tmp_path / "b.json"
        for path, content in zip(paths, (document, changed), strict=True):
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return paths

    return write


def test_two_runs_are_compared_stage_by_stage(bench, measured, document, tiny_bundle):
    assert bench("latency", "--bundle", tiny_bundle, *FAST, "-o", "again.json")[0] == 0
    code, out, err = bench("compare", measured[".json"], "again.json", "--json")
    assert (code, err) == (0, [])
    changes = json.loads(out)["changes"]
    stages = [
        (name, stage)
        for name, each in operations(document).items()
        for stage in ("whole", *(entry["stage"] for entry in each["stages"]))
    ]
    assert [(change["operation"], change["stage"]) for change in changes] == stages
    for change in changes:
        assert change["ratio"] == pytest.approx(change["b_seconds"] / change["a_seconds"])


@pytest.mark.parametrize(
    ("times", "rate", "ratio", "normalised", "change"),
    [
        (1.0, 1.0, 1.0, 1.0, "within noise"),
        (1e-3, 1.0, 1e-3, 1e-3, "faster"),
        (1e3, 1.0, 1e3, 1e3, "slower"),
        (2.0, 0.5, 2.0, 1.0, "within noise"),
        (1.0, 1e3, 1.0, 1e3, "slower"),
    ],
)
def test_changes_beyond_the_spread_are_told_at_equal_rate(
    bench, pair, document, times, rate, ratio, normalised, change
):
    code, out, _ = bench("compare", *pair(scaled(document, times, rate)), "--json")
    changes = json.loads(out)["changes"]
    assert code == 0 and {each["change"] for each in changes} == {change}
    for each in changes:
        assert each["ratio"] == pytest.approx(ratio)
        assert each["normalised"] == pytest.approx(normalised)


def test_latency_compares_too(bench, pair, document):
    paths = pair(scaled(document, 1e-3))
    code, out, _ = bench("latency", "--compare", *paths)
    assert code == 0 and out == bench("compare", *paths)[1]
    assert "faster" in out and "B/A at equal rate" in out


def test_what_only_one_side_has_is_told(bench, pair, document):
    changed = json.loads(json.dumps(document))
    del changed["configurations"][0]["operations"][1]
    code, out, err = bench("compare", *pair(changed), "--json")
    assert code == 0 and {each["operation"] for each in json.loads(out)["changes"]} == {"compress"}
    assert len(err) == 1 and "only in" in err[0] and "a.json" in err[0] and "decompress" in err[0]


def test_models_that_differ_are_told(bench, pair, document):
    changed = {**document, "bundle": {**document["bundle"], "codec_id": "00"}}
    code, _, err = bench("compare", *pair(changed))
    assert code == 0 and len(err) == 1 and "other bundles" in err[0]


def broken(document, *path, value=None):
    """The document without the value at a path of keys, or with another one there."""
    changed = json.loads(json.dumps(document))
    place = changed
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: "no json", "is not JSON"),
        (lambda d: [d], "is no result of"),
        (lambda d: {**d, "command": "rd"}, "is no result of"),
        (lambda d: {**d, "format": 2}, "has the format 2, this polc reads 1"),
        (lambda d: broken(d, "configurations"), "'configurations' is missing"),
        (lambda d: {**d, "configurations": 3}, "is no whole result"),
        (lambda d: broken(d, "configurations", 0, "sgemm", "limit_gflops", value=-1), "no positive number"),
        (lambda d: broken(d, "configurations", 0, "operations", 0, "seconds", "p90"), "'p90' is missing"),
        (lambda d: broken(d, "configurations", 0, "picture", "width", value=[1]), "is no whole result"),
        (lambda d: {**d, "configurations": []}, "no configuration in common"),
    ],
)
def test_files_of_other_shapes_are_one_line(bench, pair, document, change, message):
    code, out, err = bench("compare", *pair(change(document)))
    assert (code, out, len(err)) == (2, "", 1)
    assert "b.json" in err[0] and message in err[0]


def test_a_missing_file_is_one_line(bench, measured):
    code, out, err = bench("compare", measured[".json"], "none.json")
    assert (code, out, len(err)) == (2, "", 1) and "none.json" in err[0]
