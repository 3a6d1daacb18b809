"""The interface of ONNX Runtime that the operators declare, against ONNX Runtime's own headers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "runtime" / "csrc" / "attention"
PACKAGE = "libonnxruntime-dev"
"""Debian's package of the headers, from version 13 on."""


def downloaded(folder: Path) -> Path:
    """The headers in the system's package, downloaded and unpacked, not installed."""
    if shutil.which("apt-get") and shutil.which("dpkg"):
        command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=", PACKAGE]
        subprocess.run(command, cwd=folder, capture_output=True, timeout=120)
        for package in folder.glob(f"{PACKAGE}_*.deb"):
            subprocess.run(["dpkg", "-x", package, folder], check=True)
    return folder / "usr/include/onnxruntime"


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of onnxruntime_c_api.h: `ORT_INCLUDE_DIR`, the system's, or that of its package."""
    named = os.environ.get("ORT_INCLUDE_DIR")
    if named:
        assert (Path(named) / "onnxruntime_c_api.h").is_file(), f"ORT_INCLUDE_DIR={named} has no such header"
        return Path(named)
    installed = (Path(prefix) / "include/onnxruntime" for prefix in ("/usr", "/usr/local"))
    for folder in (*installed, downloaded(tmp_path_factory.mktemp("headers"))):
        if (folder / "onnxruntime_c_api.h").is_file():
            return folder
    pytest.skip(f"no onnxruntime_c_api.h: set ORT_INCLUDE_DIR, or install {PACKAGE}")


def test_what_is_declared_is_what_the_real_header_declares(
    headers: Path, compile_cpp: Callable[..., None]
) -> None:
    compile_cpp("-fsyntax-only", "-isystem", headers, HERE / "ort_interface_check.cc")


@pytest.mark.parametrize(
    ("declared", "instead"),
    [
        ("Unused<29, 50> unused_29;", "Unused<29, 51> unused_29;"),
        ("size_t* rank);", "int64_t* rank);"),
        ("OrtMemTypeDefault = 0", "OrtMemTypeDefault = 1"),
    ],
    ids=["place", "signature", "constant"],
)
def test_a_difference_is_found(
    headers: Path, compile_cpp: Callable[..., None], tmp_path: Path, declared: str, instead: str
) -> None:
    text = (SOURCES / "ort_interface.h").read_text()
    assert text.count(declared) == 1
    (tmp_path / "ort_interface.h").write_text(text.replace(declared, instead))
    check = HERE / "ort_interface_check.cc"
    with pytest.raises(AssertionError, match="static assertion failed|static_assert"):
        compile_cpp("-fsyntax-only", "-iquote", tmp_path, "-isystem", headers, check)


def test_no_exception_leaves_the_operators(compile_cpp: Callable[..., None], tmp_path: Path) -> None:
    compile_cpp(HERE / "exceptions_driver.cc", "-o", tmp_path / "driver")
    done = subprocess.run([tmp_path / "driver"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
