"""Fixtures that build the native operators from this tree's sources."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SOURCES = REPOSITORY / "runtime" / "csrc" / "attention"
Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def compile_cpp() -> Callable[..., None]:
    """Runs the C++ compiler with this project's flags."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        pytest.skip("no C++ compiler (set CXX)")

    def run(*arguments: object) -> None:
        flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{SOURCES}"]
        done = subprocess.run([compiler, *flags, *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def built_library(once: Once, compile_cpp: Callable[..., None]) -> Path:
    """The operators as a shared library."""

    def make(folder: Path) -> None:
        options = ["-shared", "-fPIC", "-fvisibility=hidden", "-o", folder / "libpolc_ops.so"]
        compile_cpp(SOURCES / "c_api.cc", SOURCES / "ort_op.cc", *options)

    return once("op_library", make) / "libpolc_ops.so"


@pytest.fixture
def op_library(built_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The library, as the one that `find_op_library` and `na2d_native` take."""
    from polc.attention import native

    monkeypatch.setenv("POLC_OP_LIBRARY", str(built_library))
    native.load.cache_clear()
    yield built_library
    native.load.cache_clear()


@pytest.fixture(scope="session")
def emulated_kernels(once: Once, compile_cpp: Callable[..., None]) -> Path:
    """An object file that stands for the compiled CUDA kernels, and computes on the CPU."""

    def make(folder: Path) -> None:
        here = Path(__file__).resolve().parent
        flags = ["-O1", "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden", f"-I{here}"]
        compile_cpp("-c", here / "na2d_cuda_emulated.cc", *flags, "-o", folder / "kernels.o")

    return once("emulated_kernels", make) / "kernels.o"


@pytest.fixture(scope="session")
def emulated_ort_library(once: Once, compile_cpp: Callable[..., None], emulated_kernels: Path) -> Path:
    """ONNX Runtime's operator for CUDA devices, with the kernels emulated, offered for the CPU."""

    def make(folder: Path) -> None:
        source = Path(__file__).resolve().parent / "emulated_ort_op.cc"
        options = ["-shared", "-fPIC", "-fvisibility=hidden", "-o", folder / "libemulated.so"]
        compile_cpp(source, emulated_kernels, *options)

    return once("emulated_ort_op", make) / "libemulated.so"
