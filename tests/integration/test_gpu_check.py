"""The GPU check on a machine without a GPU: every GPU step is skipped with its reason, the others work."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmarks/gpu_check.sh"


@pytest.fixture
def check(tmp_path):
    """Runs the script as on a machine without nvidia-smi; exit code, JSON, what it printed."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("dirname", "env"):
        (tools / tool).symlink_to(Path("/usr/bin") / tool)

    def run(*arguments):
        done = subprocess.run(
            ["/bin/sh", SCRIPT, "--out", tmp_path / "out", "--installed", *arguments],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "PATH": str(tools), "PYTHON": sys.executable},
        )
        path = tmp_path / "out/gpu_check.json"
        return done.returncode, json.loads(path.read_text()) if path.is_file() else None, done

    return run


def statuses(document):
    return {name: entry["status"] for name, entry in document["steps"].items()}


def test_steps_that_are_not_asked_for_are_named(check):
    code, document, done = check("--only", "machine,gpu-tests")
    assert code == 0, done.stderr
    found = statuses(document)
    assert found["machine"] == "ok" and set(found.values()) == {"ok", "skipped"} and document["complete"]
    assert document["steps"]["gpu-tests"]["reason"] == "no GPU (nvidia-smi finds none)"
    assert document["steps"]["build"]["reason"] == "not asked for"
    lines = done.stdout.splitlines()
    assert len(lines) == len(found) and lines[0].startswith("machine: ok")


def test_what_is_past_the_budget_is_named(check):
    code, document, _ = check("--budget", "1")
    assert code == 0 and set(statuses(document).values()) == {"skipped"}
    assert {entry["reason"] for entry in document["steps"].values()} == {"the budget of 1 s is spent"}


def test_a_step_that_the_budget_cuts_off_is_skipped_and_says_so(check):
    code, document, _ = check("--only", "environment", "--budget", "5.05")
    assert code == 0
    assert document["steps"]["environment"]["reason"] in (
        "cut off: the budget is spent",
        "the budget of 5.05 s is spent",
    )


def test_a_step_that_fails_is_told_and_the_others_are_done(check, tmp_path):
    code, document, done = check("--bundle", str(tmp_path / "none"), "--only", "code-onnxruntime,environment")
    assert code == 1 and document["complete"]
    assert document["steps"]["environment"]["status"] == "ok"
    failed = document["steps"]["code-onnxruntime"]
    assert failed["status"] == "failed" and "BundleError" in failed["reason"]
    assert "BundleError" in (tmp_path / "out/gpu_check.log").read_text()
    assert "code-onnxruntime: failed" in done.stdout


def test_unknown_steps_are_refused(check):
    code, document, done = check("--only", "everything")
    assert code == 1 and document is None and "no step is named everything; there are " in done.stderr


@pytest.mark.slow
def test_without_a_gpu_the_steps_of_the_processor_are_done(check):
    pytest.importorskip("compressai", reason="the reference is PyTorch's")
    code, document, done = check("--sizes", "256x192", "--budget", "500")
    assert code == 0, done.stdout
    found = statuses(document)
    done_here = {"machine", "environment", "code-torch", "code-onnxruntime", "compare-onnxruntime"}
    done_here.add("latency-onnxruntime")
    assert {name for name, status in found.items() if status == "ok"} == done_here
    assert all(entry["reason"] for entry in document["steps"].values() if entry["status"] == "skipped")
    for name in ("gpu-tests", "engines-fp16", "code-tensorrt-fp16", "latency-torch-cuda", "attention"):
        assert document["steps"][name]["reason"] == "no GPU (nvidia-smi finds none)"
    compared = document["steps"]["compare-onnxruntime"]["result"]
    assert compared["share_of_other_symbols"] == 0 and compared["reference_decodes"]["lost"] == 0
    assert compared["least_psnr_between_images"] > 60
    assert compared["top1_agreement"] == {"task_cifar10": 1, "task_camvid": pytest.approx(1, abs=1e-3)}
