"""The library of CUDA operators, built by the package's own script, and its door from PyTorch."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import polc_runtime
from polc.attention import cuda
from polc.attention.reference import na2d_reference
from polc_runtime.errors import BackendUnavailable

SOURCES = Path(__file__).resolve().parents[3] / "export" / "csrc"
FUNCTIONS = ["polc_na2d_cuda_f32", "polc_na2d_cuda_f16"]
STRICT = "-Xptxas -v -Werror all-warnings -Xcompiler=-Wall,-Wextra"
no_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Configures a project that has nothing but the CUDA operators."""
    cmake = shutil.which("cmake")
    if not cmake:
        pytest.skip("no cmake")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\n"
        "project(operators LANGUAGES CXX)\n"
        f"include({SOURCES / 'cuda.cmake'})\n"
    )
    command = [cmake, "-S", folder, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | environment)


@pytest.fixture(scope="session")
def built(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with the installed package's `polc_runtime` and what the compiler printed, in `log`."""
    if not (os.environ.get("CUDACXX") or shutil.which("nvcc")):
        pytest.skip("no nvcc (set CUDACXX)")

    def make(folder: Path) -> None:
        done = configure(folder, "-DPOLC_CUDA=ON", f"-DCMAKE_CUDA_FLAGS={STRICT}")
        assert done.returncode == 0, done.stderr
        for step in (
            ["--build", folder / "build", "--verbose"],
            ["--install", folder / "build", "--prefix", folder],
        ):
            run = subprocess.run(["cmake", *step], capture_output=True, text=True, timeout=900)
            assert run.returncode == 0, run.stdout + run.stderr
            with (folder / "log").open("a") as log:
                log.write(run.stdout + run.stderr)

    return once("cuda_operators", make)


@pytest.fixture
def library(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    monkeypatch.setenv(cuda.VARIABLE, str(built / "polc_runtime" / "libpolc_ops_cuda.so"))
    cuda.load.cache_clear()
    yield cuda.load()
    cuda.load.cache_clear()


def compiled(log: str) -> dict[tuple[str, str, int, int], tuple[int, int, int]]:
    """Registers, bytes of stack and bytes spilled of each kernel, by device, type, dim and kernel size."""
    pattern = (
        r"Compiling entry function '\S+9attentionI(f|6__half)Li(\d+)ELi(\d+)E\S*' for '(\w+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found = {}
    for kind, dim, kernel, device, stack, stored, loaded, registers in re.findall(pattern, log, re.DOTALL):
        name = "float" if kind == "f" else "half"
        found[device, name, int(dim), int(kernel)] = (int(registers), int(stack), int(stored) + int(loaded))
    return found


def test_it_compiles_for_both_generations_of_devices_and_as_ptx(built: Path) -> None:
    log = (built / "log").read_text()
    assert "code=[sm_80]" in log and "code=[compute_90,sm_90]" in log
    for device in ("sm_80", "sm_90"):
        kinds = {key[1:] for key in compiled(log) if key[0] == device}
        assert kinds == {(t, d, k) for t in ("float", "half") for d in (16, 32, 64) for k in (0, 3, 7)}


def test_no_kernel_spills_registers_or_keeps_arrays_in_memory(built: Path) -> None:
    for kind, (registers, stack, spilled) in compiled((built / "log").read_text()).items():
        print(*kind, registers, "registers")
        assert (stack, spilled) == (0, 0), kind


def test_it_shows_its_interface_alone_and_needs_no_cuda_library(built: Path) -> None:
    path = built / "polc_runtime" / "libpolc_ops_cuda.so"
    names, needed = (
        subprocess.run([*command, path], capture_output=True, text=True, check=True).stdout
        for command in (["nm", "-D", "--defined-only"], ["readelf", "-d"])
    )
    functions = {line.split()[-1] for line in names.splitlines() if " T " in line}
    assert functions == {*FUNCTIONS, "polc_ops_cuda_error"}
    assert "libcuda" not in needed


def start(library: ctypes.CDLL, function: str, dim: int, kernel: int) -> tuple[int, str]:
    status = getattr(library, function)(0, 0, 0, 0, 0, 1, 5, 5, 1, dim, kernel, 0.25, 0)
    return status, library.polc_ops_cuda_error().decode()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_it_does_not_take_is_named(library: ctypes.CDLL, function: str) -> None:
    assert start(library, function, 24, 7) == (1, "expected a dim of 16, 32 or 64, got 24")
    assert start(library, function, 16, 6) == (1, "expected an odd kernel_size from 1 to 255, got 6")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_without_a_device_the_library_says_so(library: ctypes.CDLL, function: str) -> None:
    status, text = start(library, function, 16, 7)
    assert status == 2 and re.search("driver|device", text)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_another_kernel_is_proposed() -> None:
    q = torch.zeros(1, 5, 5, 1, 16)
    with pytest.raises(BackendUnavailable, match="no CUDA device; choose the kernel tiled"):
        cuda.na2d_cuda(q, q, q, None, 7, 0.25)


def test_a_missing_library_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.load.cache_clear()
    monkeypatch.setattr(polc_runtime, "__path__", [str(tmp_path)])
    monkeypatch.delenv(cuda.VARIABLE, raising=False)
    with pytest.raises(BackendUnavailable, match="built without them .* install again with nvcc"):
        cuda.load()
    monkeypatch.setenv(cuda.VARIABLE, "none")
    with pytest.raises(BackendUnavailable, match="POLC_CUDA_OP_LIBRARY=none"):
        cuda.load()
    monkeypatch.setenv(cuda.VARIABLE, str(tmp_path / "nowhere.so"))
    with pytest.raises(BackendUnavailable, match=r"do not load from .*nowhere\.so"):
        cuda.load()


@pytest.mark.parametrize(
    ("option", "status", "said"),
    [
        ("AUTO", 0, "built without CUDA operators: no CUDA compiler works here"),
        ("ON", 1, "POLC_CUDA=ON, but no CUDA compiler works here"),
        ("OFF", 0, "built without CUDA operators: POLC_CUDA=OFF"),
    ],
)
def test_without_nvcc_only_asking_for_it_fails(tmp_path: Path, option: str, status: int, said: str) -> None:
    done = configure(tmp_path, f"-DPOLC_CUDA={option}", CUDACXX=str(tmp_path / "nvcc"))
    assert done.returncode == status, done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())


@pytest.mark.gpu
@no_device
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 13])
@pytest.mark.parametrize("dim", [16, 32, 64])
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (32, 23), (70, 65)], ids=str)
def test_a_device_gives_the_reference_result(
    size: tuple[int, int], dim: int, kernel: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, *size, 3, dim, generator=generator).to(dtype)
    rpb = torch.randn(3, 2 * kernel - 1, 2 * kernel - 1, generator=generator)
    for bias in (rpb, None):
        given = [None if t is None else t.cuda() for t in (q, k, v, bias)]
        out = cuda.na2d_cuda(*given, kernel, dim**-0.5).cpu()  # type: ignore[arg-type]
        doubles = [None if t is None else t.double() for t in (q, k, v, bias)]
        expected = na2d_reference(*doubles, kernel, dim**-0.5)  # type: ignore[arg-type]
        rounding = 2**-11 if dtype == torch.float16 else 0
        torch.testing.assert_close(out.double(), expected, atol=5e-6, rtol=rounding)


@pytest.mark.gpu
@no_device
@pytest.mark.usefixtures("library")
def test_a_device_runs_it_on_the_current_stream_and_refuses_other_tensors() -> None:
    q = torch.randn(1, 16, 24, 2, 16, device="cuda")
    expected = cuda.na2d_cuda(q, q, q, None, 7, 0.25)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = q * 1.0
        out = cuda.na2d_cuda(late, late, late, None, 7, 0.25)
    stream.synchronize()
    assert torch.equal(out, expected)
    with pytest.raises(ValueError, match="float32 or float16 on one CUDA device, got torch.float64"):
        cuda.na2d_cuda(q.double(), q, q, None, 7, 0.25)
    with pytest.raises(ValueError, match="expected a dim of 16, 32 or 64, got 8"):
        cuda.na2d_cuda(q[..., :8], q[..., :8], q[..., :8], None, 7, 0.25)
