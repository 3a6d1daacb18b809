"""`polc-bench latency` on a small bundle: what it measures, writes, prints and refuses."""

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
    files = {suffix: folder / f"out{suffix}" for suffix in (".json", ".csv")}
    outputs = ("-o", files[".json"], "--csv", files[".csv"])
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
    assert {stage["stage"] for stage in found["compress"]["stages"]} == {"read", "analysis", *BOTH}
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
    manifest = Bundle.load(tiny_bundle).manifest
    sgemm = document["configurations"][0]["sgemm"]
    for name, transform in (("compress", "analysis"), ("decompress", "synthesis")):
        operation = operations(document)[name]
        stages = {stage["stage"]: stage for stage in operation["stages"]}
        ratios, together = operation["ratios"], operation["context_steps"]
        for graph in (transform, "hyper_synthesis", *CONTEXT):
            stage, flops = stages[graph], graph_flops(manifest, graph, 192, 192)
            assert stage["gemm_flops"] == flops > 0
            limit = flops / sgemm["limit_gflops"] / 1e9
            assert stage["ratio"]["median"] == pytest.approx(stage["seconds"]["median"] / limit)
            best = flops / sgemm["best_gflops"] / 1e9
            assert stage["ratio"]["best"] == pytest.approx(stage["seconds"]["min"] / best)
        assert ratios[f"{transform}_to_limit"] == pytest.approx(stages[transform]["ratio"])
        assert together["gemm_flops"] == pytest.approx(sum(stages[step]["gemm_flops"] for step in CONTEXT))
        whole, entropy = operation["seconds"]["median"], stages["entropy"]["seconds"]["median"]
        assert ratios["entropy_to_whole"]["median"] == pytest.approx(entropy / whole)
        assert together["seconds"]["mean"] == pytest.approx(
            sum(stages[step]["seconds"]["mean"] for step in CONTEXT)
        )
        assert ratios[f"context_and_hyper_to_{transform}"]["median"] > 0
        limit = stages[transform]["limit_seconds"]["median"]
        assert ratios[f"whole_to_{transform}_limit"]["median"] == pytest.approx(whole / limit)
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
    manifest = Bundle.load(task_bundle).manifest
    for name in ("analysis", "synthesis"):
        stage = found[name]["stages"][0]
        assert stage["stage"] == name
        assert stage["gemm_flops"] == graph_flops(manifest, name, 192, 192, 3)
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
        (("--attention", "fast"), "expected some of native, portable"),
        (("--operation", "infer"), "the operation infer needs a task"),
        (("--task", "pets"), "has no tasks"),
        (("--quality", "9"), "quality must lie between 1 and 8"),
        (("picture.png", "--size", "64x64"), "not both"),
        (("-",), "standard input"),
        (("none.png",), "none.png"),
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
