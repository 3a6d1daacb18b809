"""`polc-bench env`: what it finds, and why the rest is missing."""

import json
import os
import subprocess
import sys
from importlib import metadata

import pytest

from polc_runtime.backends import backend_names
from polc_runtime.backends.op_library import find_op_library
from polc_runtime.bitstream import rans
from polc_runtime.cli.bench import main


@pytest.fixture
def env(capsys):
    """Runs `polc-bench env --json`; its document."""

    def run():
        assert main(["env", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_versions_are_those_installed(env):
    versions = env()["versions"]
    for name in ("polc", "numpy", "onnxruntime", "click", "pillow"):
        assert versions[name] == metadata.version(name)
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "tensorrt" in versions


def test_every_backend_is_listed_with_a_reason_where_it_is_missing(env):
    backends = env()["backends"]
    assert {"onnxruntime", "onnxruntime-cuda", "tensorrt", "torchscript", "torch"} <= backends.keys()
    assert set(backend_names()) <= backends.keys()
    assert backends["onnxruntime"]["available"]
    assert all(found["available"] or found["detail"] for found in backends.values())


def test_libraries_are_those_that_load(env):
    libraries, library = env()["libraries"], find_op_library()
    assert libraries["native operators"]["available"] == (library.path is not None)
    assert libraries["native operators in ONNX Runtime"]["available"] == library.registers
    assert libraries["native coder"]["available"] == (rans.implementation() == "native")
    assert all(found["available"] or found["detail"] for found in libraries.values())


def test_operators_that_are_not_wanted_are_told(env, monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", "none")
    for name in ("native operators", "native operators in ONNX Runtime"):
        found = env()["libraries"][name]
        assert not found["available"] and found["detail"] == "POLC_OP_LIBRARY=none"


def test_a_library_that_does_not_load_is_no_failure(env, monkeypatch, tmp_path):
    (tmp_path / "ops.so").write_bytes(b"no library")
    monkeypatch.setenv("POLC_OP_LIBRARY", str(tmp_path / "ops.so"))
    found = env()["libraries"]["native operators"]
    assert not found["available"] and "does not load" in found["detail"]


def test_the_chosen_coder_is_told(env, monkeypatch):
    monkeypatch.setenv("POLC_CODER", "python")
    found = env()["libraries"]["native coder"]
    assert not found["available"] and "POLC_CODER" in found["detail"]


def test_text_has_a_line_for_each(capsys):
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in ("numpy", "onnxruntime", "onnxruntime-cuda", "native coder", "CUDA driver"):
        assert any(line.strip().startswith(f"{name} ") for line in lines), name


def test_torch_is_not_imported():
    code = "import sys; from polc_runtime.cli.bench import main; main(['env']); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=dict(os.environ)
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_backends_for_a_gpu_say_what_they_lack_and_what_brings_it(env):
    found = env()
    for name, install in (
        ("onnxruntime-cuda", "pip uninstall onnxruntime && pip install onnxruntime-gpu"),
        ("tensorrt", "pip install 'polc[tensorrt]'"),
    ):
        backend = found["backends"][name]
        assert backend["available"] or (backend["detail"] and backend["install"] == install), name
    assert {"tensorrt", "cuda-bindings", "onnxruntime-gpu"} <= found["versions"].keys()
    assert {"CUDA operators", "CUDA operators in ONNX Runtime", "TensorRT plugin", "CUDA driver"} <= found[
        "libraries"
    ].keys()


def test_a_plugin_library_that_is_named_is_looked_for(env, monkeypatch, tmp_path):
    monkeypatch.setenv("POLC_TRT_PLUGIN", str(tmp_path / "none.so"))
    found = env()["libraries"]["TensorRT plugin"]
    assert not found["available"] and found["detail"] == f"POLC_TRT_PLUGIN={tmp_path / 'none.so'}"
    (tmp_path / "none.so").write_bytes(b"")
    assert env()["libraries"]["TensorRT plugin"]["available"]
    monkeypatch.setenv("POLC_TRT_PLUGIN", "none")
    assert env()["libraries"]["TensorRT plugin"]["detail"] == "POLC_TRT_PLUGIN=none"
