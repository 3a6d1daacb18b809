"""The libraries of CUDA operators, built by the package's own scripts, and their door from PyTorch."""

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
from attention_problems import assert_right, problem

import polc_runtime
from polc.attention import KERNELS, cuda
from polc_runtime.errors import BackendUnavailable

SOURCES = Path(__file__).resolve().parents[3] / "runtime" / "csrc" / "attention"
INTERFACE = {"polc_na2d_cuda", "polc_ops_cuda_error", "RegisterCustomOps"}
FLOAT, HALF = 0, 1
TENSORRT = os.environ.get("TENSORRT_INCLUDE_DIR", "").split(os.pathsep)[0]
STRICT = "-Xptxas -v -Werror all-warnings -Xcompiler=-Wall,-Wextra"
no_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def configure(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Configures a project that has nothing but the CUDA operators and the TensorRT plugin."""
    cmake = shutil.which("cmake")
    if not cmake:
        pytest.skip("no cmake")
    (folder / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\n"
        "project(operators LANGUAGES CXX)\n"
        f"include({SOURCES / 'cuda.cmake'})\n"
        f"include({SOURCES / 'tensorrt.cmake'})\n"
    )
    command = [cmake, "-S", folder, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release", *options]
    environment = {**os.environ, "TENSORRT_INCLUDE_DIR": "", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def needs_nvcc() -> None:
    if not (os.environ.get("CUDACXX") or shutil.which("nvcc")):
        pytest.skip("no nvcc (set CUDACXX)")


@pytest.fixture(scope="session")
def built(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A folder with the installed package's `polc_runtime` and what the compiler printed, in `log`."""
    needs_nvcc()

    def make(folder: Path) -> None:
        options = [
            "-DPOLC_CUDA=ON",
            f"-DCMAKE_CUDA_FLAGS={STRICT}",
            "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror",
        ]
        options += [f"-DTENSORRT_INCLUDE_DIR={TENSORRT}"] if TENSORRT else []
        done = configure(folder, *options)
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
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The library that the environment names, else one built for the tests."""
    if not os.environ.get(cuda.VARIABLE):
        built = request.getfixturevalue("built")
        monkeypatch.setenv(cuda.VARIABLE, str(built / "polc_runtime" / "libpolc_ops_cuda.so"))
    yield from loaded()


@pytest.fixture
def emulated(
    once: Callable[[str, Callable[[Path], None]], Path],
    compile_cpp: Callable[..., None],
    emulated_kernels: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[ctypes.CDLL]:
    """The library with its kernels emulated on the CPU."""

    def make(folder: Path) -> None:
        flags = ["-shared", "-fPIC", "-fvisibility=hidden", "-o", folder / "library.so"]
        compile_cpp(SOURCES / "cuda_api.cc", emulated_kernels, *flags)

    monkeypatch.setenv(cuda.VARIABLE, str(once("emulated_cuda_api", make) / "library.so"))
    yield from loaded()


def loaded() -> Iterator[ctypes.CDLL]:
    """Loads the library that the environment names, for one test."""
    for cached in (cuda.load, cuda.available):
        cached.cache_clear()
    yield cuda.load()
    for cached in (cuda.load, cuda.available):
        cached.cache_clear()


def compiled(log: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Registers, bytes of stack and bytes spilled of each kernel, by device and kind of block."""
    pattern = (
        r"Compiling entry function '\S+9attentionINS\w+?_\d+((?:Plain|Slice|Mma)BlockI\w*?EE)EEEvNS\S*' "
        r"for '(\w+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    return {
        (device, kind): (int(registers), int(stack), int(stored) + int(loaded))
        for kind, device, stack, stored, loaded, registers in re.findall(pattern, log, re.DOTALL)
    }


KINDS = (
    *(f"SliceBlockILi{kernel}EE" for kernel in (3, 7)),
    *(f"MmaBlockILi{dim}ELi{kernel}EE" for dim in (16, 32, 64) for kernel in (3, 7)),
    *(f"PlainBlockI{kind}Li{dim}EE" for kind in ("f", "6__half") for dim in (16, 32, 64)),
)
"""As the compiler names them."""


@pytest.mark.slow
def test_it_compiles_for_both_generations_of_devices_and_as_ptx(built: Path) -> None:
    log = (built / "log").read_text()
    assert "code=[sm_80]" in log and "code=[compute_90,sm_90]" in log
    assert set(compiled(log)) == {(device, kind) for device in ("sm_80", "sm_90") for kind in KINDS}


@pytest.mark.slow
def test_no_kernel_spills_registers_or_keeps_arrays_in_memory(built: Path) -> None:
    for kind, (registers, stack, spilled) in compiled((built / "log").read_text()).items():
        print(*kind, registers, "registers")
        assert (stack, spilled) == (0, 0), kind


def shown(library: Path) -> tuple[set[str], str]:
    """The functions a library shows, and what it needs."""
    names, needed = (
        subprocess.run([*command, library], capture_output=True, text=True, check=True).stdout
        for command in (["nm", "-D", "--defined-only"], ["readelf", "-d"])
    )
    return {line.split()[-1] for line in names.splitlines() if " T " in line}, needed


@pytest.mark.slow
def test_it_shows_its_interface_alone_and_needs_no_cuda_library(built: Path) -> None:
    functions, needed = shown(built / "polc_runtime" / "libpolc_ops_cuda.so")
    assert functions == INTERFACE
    assert "libcuda" not in needed


@pytest.mark.slow
def test_the_plugin_shows_what_tensorrt_looks_for_and_needs_no_library(built: Path) -> None:
    if not TENSORRT:
        pytest.skip("no TensorRT headers (set TENSORRT_INCLUDE_DIR)")
    functions, needed = shown(built / "polc_runtime" / "libpolc_trt_plugin.so")
    assert functions in ({"setLoggerFinder", entry} for entry in ("getCreators", "getPluginCreators"))
    assert "libcuda" not in needed and "libnvinfer" not in needed


def start(library: ctypes.CDLL, kind: int, dim: int, kernel: int) -> tuple[int, str]:
    status = library.polc_na2d_cuda(kind, 0, 0, 0, FLOAT, 0, 0, 1, 5, 5, 1, dim, kernel, 0.25, 0)
    return status, library.polc_ops_cuda_error().decode()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FLOAT, HALF])
def test_what_it_does_not_take_is_named(library: ctypes.CDLL, kind: int) -> None:
    assert start(library, kind, 24, 7) == (1, "expected a dim of 16, 32 or 64, got 24")
    assert start(library, kind, 16, 6) == (1, "expected an odd kernel_size from 1 to 255, got 6")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", [FLOAT, HALF])
def test_without_a_device_the_library_says_so(library: ctypes.CDLL, kind: int) -> None:
    status, text = start(library, kind, 16, 7)
    assert status == 2 and re.search("driver|device", text)


@pytest.mark.parametrize("bias", [None, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_its_function_gives_the_reference_result_with_emulated_kernels(
    emulated: ctypes.CDLL, dtype: torch.dtype, bias: torch.dtype | None
) -> None:
    q, k, v, rpb = problem((11, 18), 3, 32, 7, dtype)
    given, out = None if bias is None else rpb.to(bias), torch.full_like(q, float("nan"))
    place = 0 if given is None else given.data_ptr()
    status = emulated.polc_na2d_cuda(
        int(dtype == torch.float16), q.data_ptr(), k.data_ptr(), v.data_ptr(),
        int(bias == torch.float16), place, out.data_ptr(), *q.shape, 7, 32**-0.5, 0,
    )  # fmt: skip
    assert (status, emulated.polc_ops_cuda_error()) == (0, b"")
    assert_right(out, q, k, v, given, 7)


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


@pytest.mark.parametrize(
    ("option", "status", "said"),
    [
        ("AUTO", 0, "built without the TensorRT plugin: it needs the CUDA operators, which are not built"),
        ("ON", 1, "POLC_TENSORRT=ON, but it needs the CUDA operators, which are not built"),
        ("OFF", 0, "built without the TensorRT plugin: POLC_TENSORRT=OFF"),
    ],
)
def test_without_cuda_only_asking_for_the_plugin_fails(
    tmp_path: Path, option: str, status: int, said: str
) -> None:
    done = configure(tmp_path, "-DPOLC_CUDA=OFF", f"-DPOLC_TENSORRT={option}")
    assert done.returncode == status, done.stderr
    assert said in " ".join((done.stdout + done.stderr).split())


def test_without_tensorrts_headers_asking_for_the_plugin_fails(tmp_path: Path) -> None:
    needs_nvcc()
    done = configure(tmp_path, "-DPOLC_TENSORRT=ON")
    assert done.returncode == 1, done.stdout
    assert "POLC_TENSORRT=ON, but no TensorRT headers (set TENSORRT_INCLUDE_DIR)" in " ".join(
        done.stderr.split()
    )


def test_a_named_folder_without_tensorrts_headers_is_an_error(tmp_path: Path) -> None:
    done = configure(tmp_path, "-DPOLC_CUDA=OFF", TENSORRT_INCLUDE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "has no NvInferRuntime.h" in " ".join(done.stderr.split())


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
    q, k, v, rpb = problem(size, 3, dim, kernel, dtype, batch=2)
    for bias in (rpb, rpb.half(), None):
        given = [None if t is None else t.cuda() for t in (q, k, v, bias)]
        out = cuda.na2d_cuda(*given, kernel, dim**-0.5).cpu()  # type: ignore[arg-type]
        assert_right(out, q, k, v, bias, kernel)


@pytest.mark.gpu
@no_device
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kernel", ["auto", "operator"])
def test_a_device_trains_by_tiles_and_infers_by_the_kernel(kernel: str) -> None:
    q, k, v, rpb = (t.cuda() for t in problem((13, 18), 2, 16, 7))
    expected = cuda.na2d_cuda(q, k, v, rpb, 7, 0.25)
    assert torch.equal(KERNELS[kernel](q, k, v, rpb, 7, 0.25), expected)
    q.requires_grad_()
    with pytest.raises(RuntimeError, match="no gradient: call it under torch.no_grad"):
        cuda.na2d_cuda(q, k, v, rpb, 7, 0.25)
    out = KERNELS[kernel](q, k, v, rpb, 7, 0.25)
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=0)
    (grad,) = torch.autograd.grad(out.sum(), q)
    (tiled,) = torch.autograd.grad(KERNELS["tiled"](q, k, v, rpb, 7, 0.25).sum(), q)
    torch.testing.assert_close(grad, tiled, atol=2e-5, rtol=0)


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
