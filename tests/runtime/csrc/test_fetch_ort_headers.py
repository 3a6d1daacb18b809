"""The script that finds ONNX Runtime's headers, as far as it needs no network."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / "runtime" / "csrc" / "attention" / "fetch_ort_headers.sh"


def fetch(*arguments, **environment):
    command = ["sh", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


def test_a_named_folder_with_headers_is_taken_and_nothing_is_fetched(tmp_path):
    headers, out = tmp_path / "headers", tmp_path / "out"
    headers.mkdir()
    (headers / "onnxruntime_c_api.h").touch()
    done = fetch(out, ORT_INCLUDE_DIR=str(headers))
    assert (done.returncode, done.stdout) == (0, f"{headers}\n")
    assert not out.exists()


def test_a_named_folder_without_headers_is_refused(tmp_path):
    done = fetch(tmp_path, ORT_INCLUDE_DIR=str(tmp_path))
    assert done.returncode == 1 and "has no onnxruntime_c_api.h" in done.stderr


def test_headers_fetched_before_are_kept(tmp_path):
    include = tmp_path / "usr" / "include" / "onnxruntime"
    include.mkdir(parents=True)
    (include / "onnxruntime_c_api.h").touch()
    done = fetch(tmp_path, ORT_INCLUDE_DIR="")
    assert (done.returncode, done.stdout) == (0, f"{include}\n")


def test_a_missing_argument_is_explained():
    done = fetch()
    assert done.returncode == 2 and "fetch_ort_headers.sh OUT" in done.stderr
