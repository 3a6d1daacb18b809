"""The GPU check on a machine without a GPU: every GPU step is skipped with its reason, the others work."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "tests/gpu/gpu_check.sh"


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


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT.with_suffix(".py"))
    sys.modules["gpu_check"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_check"]


@pytest.fixture
def started(script, tmp_path):
    return script.Check(script.parse(["--out", str(tmp_path)]), tmp_path, tmp_path)


@pytest.mark.parametrize("error", [TypeError("a"), StopIteration("a"), SyntaxError("a")], ids=repr)
def test_a_step_that_breaks_in_any_way_is_told(script, started, error):
    def breaks(check):
        raise error

    entry = script.perform(started, script.Step("breaks", breaks, 10))
    assert entry["status"] == "failed" and entry["reason"] == repr(error)


@pytest.mark.parametrize(("seconds", "status"), [(0.5, "failed"), (900, "skipped")])
def test_what_a_step_had_found_and_printed_before_it_was_stopped_is_kept(script, started, seconds, status):
    def sleeps(check):
        try:
            check.python("-c", "import time; print('so far', flush=True); time.sleep(60)")
        except script.Failure as error:
            error.result = {"found": 1}
            raise

    started.options.budget = script.RESERVE + 1
    entry = script.perform(started, script.Step("sleeps", sleeps, seconds))
    assert entry["status"] == status and entry["result"] == {"found": 1} and entry["seconds"] < 10
    assert "so far" in (started.out / "gpu_check.log").read_text()


def test_a_variable_stays_set_only_if_it_helps(script, started):
    def prints():
        return json.loads(started.python("-c", "import os; print('{\"A\": ' + os.environ['A'] + '}')"))

    started.deadline = time.monotonic() + 60
    assert started.without("A", "1", prints) == {"A": 1} and started.variables == {"A": "1"}
    started.variables.clear()
    with pytest.raises(script.Failure, match="NameError"):
        started.without("A", "1", lambda: started.python("-c", "fails"))
    assert started.variables == {}


def children(parent):
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [pid for pid, of in (map(int, line.split()) for line in listed.splitlines()) if of == parent]


def test_a_run_that_is_terminated_leaves_what_it_had_found_and_no_program(tmp_path):
    command = [sys.executable, SCRIPT.with_suffix(".py"), "--installed", "--out", tmp_path]
    run = subprocess.Popen([*command, "--only", "machine,environment"], stdout=subprocess.PIPE, text=True)
    with run:
        assert run.stdout.readline().startswith("machine: ok")
        while not (found := children(run.pid)):
            assert run.poll() is None
        time.sleep(0.2)  # for the script to have noted that it started it
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "gpu_check.json").read_text())["steps"]["machine"]["status"] == "ok"
    for pid in found:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


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
