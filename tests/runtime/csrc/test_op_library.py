"""Finding the library of native operators."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

import polc_runtime
from polc_runtime.backends.op_library import OpLibrary, find_op_library
from polc_runtime.errors import BackendUnavailable

SOURCES = Path(__file__).resolve().parents[3] / "runtime" / "csrc" / "attention"


def test_the_variable_names_the_library(op_library):
    assert find_op_library().path == op_library


def test_onnxruntime_registers_the_library(op_library):
    found = find_op_library()
    assert found.registers and found.reason == ""
    ort.SessionOptions().register_custom_ops_library(str(found.path))


def test_a_library_of_an_older_version_is_refused(compile_cpp, tmp_path, monkeypatch):
    library = tmp_path / "libpolc_ops.so"
    compile_cpp(SOURCES / "c_api.cc", "-shared", "-fPIC", "-O0", "-o", library)
    monkeypatch.setenv("POLC_OP_LIBRARY", str(library))
    with pytest.raises(BackendUnavailable, match="older version, without RegisterCustomOps; install again"):
        find_op_library()


@pytest.mark.parametrize("isa", ["baseline", "no such set"])
def test_a_lesser_instruction_set_can_be_chosen(op_library, isa):
    code = "from polc_runtime.backends.op_library import find_op_library; print(find_op_library().isa)"
    command = [sys.executable, "-c", code]
    best, chosen = (
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | named
        ).stdout.strip()
        for named in ({}, {"POLC_OPS_ISA": isa})
    )
    assert chosen == (isa if isa == "baseline" else best)
    assert best in {"baseline", "avx2", "avx512"}


def test_none_does_without(op_library, monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", "none")
    assert find_op_library() == OpLibrary(None, "POLC_OP_LIBRARY=none")


def test_a_named_library_that_is_missing_or_no_library_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", str(tmp_path / "nowhere.so"))
    with pytest.raises(BackendUnavailable, match=r"nowhere\.so: no such file; unset it"):
        find_op_library()
    broken = tmp_path / "broken.so"
    broken.write_text("not a library")
    monkeypatch.setenv("POLC_OP_LIBRARY", str(broken))
    with pytest.raises(BackendUnavailable, match="does not load"):
        find_op_library()


def test_the_packages_own_library_is_found_and_its_absence_explained(built_library, tmp_path, monkeypatch):
    monkeypatch.delenv("POLC_OP_LIBRARY", raising=False)
    monkeypatch.setattr(polc_runtime, "__path__", [str(tmp_path)])
    assert find_op_library().reason.startswith("the package was built without its native operators")
    copy = tmp_path / "libpolc_ops.so"
    copy.write_bytes(Path(built_library).read_bytes())
    assert find_op_library().path == copy


def test_a_library_of_the_package_that_does_not_load_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.delenv("POLC_OP_LIBRARY", raising=False)
    monkeypatch.setattr(polc_runtime, "__path__", [str(tmp_path)])
    (tmp_path / "libpolc_ops.so").write_text("not a library")
    assert find_op_library().path is None
    assert "does not load" in find_op_library().reason


def test_a_compiler_without_vector_extensions_leaves_the_library_out_and_fails_nothing(tmp_path):
    if not (cmake := shutil.which("cmake")):
        pytest.skip("no cmake")
    lines = ("cmake_minimum_required(VERSION 3.18)", "project(operators LANGUAGES CXX)")
    (tmp_path / "CMakeLists.txt").write_text("\n".join([*lines, f"include({SOURCES / 'cpu.cmake'})"]))
    command = [cmake, "-S", tmp_path, "-B", tmp_path / "build", "-DPOLC_VECTOR_EXTENSIONS=OFF"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "built without native operators" in " ".join(done.stderr.split())
