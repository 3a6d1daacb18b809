"""The CUDA attention kernel's source, run on the CPU, against the definition and golden vectors."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_problems import assert_right, exact, problem
from torch import Tensor

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "runtime" / "csrc" / "attention"
H100, ADA, NONE = 232448, 101376, 0  # bytes of shared memory a block
DRIVER = [HERE / "na2d_cuda_driver.cc", f"-I{HERE}", "-fno-strict-aliasing"]


class Refused(Exception):
    """The kernel's `check` found something wrong."""


def call(
    library: ctypes.CDLL,
    dtype: torch.dtype,
    pointers: list[int],
    sizes: Sequence[int],
    kernel: int,
    memory: int = H100,
) -> None:
    """Computes with scale = dim ** -0.5, on a device with so much memory."""
    function = library.emulate_f32 if dtype == torch.float32 else library.emulate_f16
    function.argtypes = [*[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 6, ctypes.c_float, ctypes.c_int64]
    library.emulation_refusal.restype = ctypes.c_char_p
    if function(*pointers, *sizes, kernel, sizes[-1] ** -0.5, memory):
        raise Refused(library.emulation_refusal().decode())


def emulate(
    library: ctypes.CDLL, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel: int, memory: int = H100
) -> Tensor:
    """The result for float32 or float16 q, k, v."""
    out = torch.full_like(q, float("nan"))
    pointers = [t.data_ptr() for t in (q, k, v)] + [0 if rpb is None else rpb.data_ptr(), out.data_ptr()]
    call(library, q.dtype, pointers, q.shape, kernel, memory)
    return out


@pytest.fixture(scope="session")
def emulation(once: Callable[..., Path], compile_cpp: Callable[..., None]) -> ctypes.CDLL:
    def make(folder: Path) -> None:
        compile_cpp(*DRIVER, "-O1", "-shared", "-fPIC", "-o", folder / "emulation.so")

    return ctypes.CDLL(str(once("na2d_cuda_emulation", make) / "emulation.so"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_is_right_on_random_problems_with_exactly_the_shared_memory_it_asks_for(
    emulation: ctypes.CDLL, seed: int
) -> None:
    assert emulation.random_problems(60, ctypes.c_uint64(seed)) == 0  # it prints those that fail


def build(compile_cpp: Callable[..., None], folder: Path, sanitizers: str, *flags: str) -> Path:
    """The driver as a program with sanitizers; skips where the compiler lacks them."""
    options = ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    try:
        compile_cpp(*flags, *DRIVER, *options, "-o", folder / "driver")
    except AssertionError as error:
        if "cannot find" not in str(error):
            raise
        pytest.skip("the compiler has no sanitizer libraries")
    return folder / "driver"


def run(driver: Path, problems: int, seed: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    command = [str(driver), str(problems), str(seed)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize(("sanitizers", "problems"), [("address,undefined", 200), ("thread", 60)])
def test_the_sanitizers_find_nothing(
    compile_cpp: Callable[..., None], tmp_path: Path, sanitizers: str, problems: int
) -> None:
    done = run(build(compile_cpp, tmp_path, sanitizers), problems, 7)
    assert done.returncode == 0, done.stdout + done.stderr


BARRIERS = [("na2d_cuda_mma.inc", 0), *(("na2d_cuda_slices.inc", place) for place in range(3))]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "place"), BARRIERS)
def test_a_barrier_left_out_is_found_as_a_race(
    compile_cpp: Callable[..., None], tmp_path: Path, source: str, place: int
) -> None:
    for path in SOURCES.glob("na2d_cuda*"):
        shutil.copy(path, tmp_path)
    pieces = (tmp_path / source).read_text().split(" barrier();")
    assert len(pieces) == 1 + sum(name == source for name, _ in BARRIERS)
    pieces[place : place + 2] = ["".join(pieces[place : place + 2])]
    (tmp_path / source).write_text(" barrier();".join(pieces))
    done = run(build(compile_cpp, tmp_path, "thread", "-iquote", str(tmp_path)), 20, 1)
    assert done.returncode != 0 and "data race" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("case", [case for case in range(14) if case != 10])  # 10 has a dim of 8
def test_gives_the_golden_output(golden: Path, emulation: ctypes.CDLL, case: int) -> None:
    with np.load(golden / "na2d.npz") as data:
        q, k, v, rpb, out = (torch.from_numpy(data[f"c{case}_{n}"]) for n in ("q", "k", "v", "rpb", "out"))
        kernel = int(data[f"c{case}_cfg"][5])
    assert (emulate(emulation, q, k, v, rpb, kernel) - out).abs().max() < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("memory", [H100, NONE], ids=["tiled", "from global memory"])
@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 40), (33, 1), (2, 9), (6, 17), (31, 16), (32, 23), (39, 33)], ids=str
)
def test_is_right_at_every_size(
    emulation: ctypes.CDLL, size: tuple[int, int], kernel: int, memory: int, dtype: torch.dtype
) -> None:
    given = problem(size, 2, 16, kernel, dtype)
    assert_right(emulate(emulation, *given, kernel, memory), *given, kernel)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("dim", [16, 32, 64])
def test_is_right_at_every_dim_and_kernel_with_a_bias_and_without(
    emulation: ctypes.CDLL, dim: int, kernel: int, with_bias: bool, dtype: torch.dtype
) -> None:
    q, k, v, rpb = problem((19, 18), 3, dim, kernel, dtype, batch=2)
    bias = rpb if with_bias else None
    assert_right(emulate(emulation, q, k, v, bias, kernel, ADA), q, k, v, bias, kernel)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_bias_of_minus_infinity_masks_keys(emulation: ctypes.CDLL, dtype: torch.dtype) -> None:
    q, k, v, rpb = problem((20, 20), 2, 16, 7, dtype)
    rpb[:, :6] = -torch.inf  # all above the query: for most queries the first rows of keys they meet
    assert_right(emulate(emulation, q, k, v, rpb, 7), q, k, v, rpb, 7)


def test_large_logits_do_not_overflow(emulation: ctypes.CDLL) -> None:
    q, k, v, rpb = problem((9, 20), 1, 16, 7)
    rpb *= 1e4
    out = emulate(emulation, q, k, v, rpb, 7)
    torch.testing.assert_close(
        out.double(), exact(q, k, v, rpb, 7), atol=4e-3, rtol=0
    )  # 1e4 has steps of 1e-3


@pytest.mark.parametrize(
    ("dim", "kernel", "said"),
    [
        (8, 7, "expected a dim of 16, 32 or 64, got 8"),
        (16, 4, "expected an odd kernel_size from 1 to 255, got 4"),
        (16, 257, "expected an odd kernel_size from 1 to 255, got 257"),
        (16, -1, "expected an odd kernel_size from 1 to 255, got -1"),
    ],
)
def test_what_it_does_not_take_is_named(emulation: ctypes.CDLL, dim: int, kernel: int, said: str) -> None:
    q = torch.zeros(1, 5, 5, 1, dim)
    with pytest.raises(Refused, match=said):
        emulate(emulation, q, q, q, None, kernel)


def test_unaligned_tensors_are_refused(emulation: ctypes.CDLL) -> None:
    q = torch.zeros(1, 5, 5, 1, 16)
    k = torch.zeros(401)[1:].view(1, 5, 5, 1, 16)
    with pytest.raises(Refused, match="aligned to 16 bytes"):
        emulate(emulation, q, k, q, None, 7)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (((1 << 30) + 1, 1, 1, 1), "expected sizes from 0 to 1073741824, got 1073741825"),
        ((1, -1, 1, 1), "expected sizes from 0 to 1073741824, got -1"),
        ((1 << 30, 1, 1, 2), "the tensors are too large"),
        ((1, 1 << 30, 1 << 30, 1), "the tensors are too large"),
        ((1 << 16, 1 << 15, 1, 1), "the tensors are too large"),  # rows
        ((1, 1, 1 << 19, 1 << 10), "the tensors are too large"),  # chunks of a row
    ],
)
def test_sizes_that_no_grid_or_offset_holds_are_refused(
    emulation: ctypes.CDLL, shape: tuple[int, ...], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        call(emulation, torch.float32, [0] * 5, (*shape, 16), 7)
