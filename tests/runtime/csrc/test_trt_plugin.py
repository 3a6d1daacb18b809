"""The TensorRT plugin, with the kernels emulated, as TensorRT calls it; and TensorRT's own registry."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attention_problems import assert_right, problem
from torch import Tensor

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "runtime" / "csrc" / "attention"
HEADERS = [Path(p) for p in os.environ.get("TENSORRT_INCLUDE_DIR", "").split(os.pathsep) if p]
"""Folders of TensorRT's headers: one, or several to test several versions."""
FLOAT, HALF, INT32 = 0, 1, 2


def cuda_headers() -> Path | None:
    """Where CUDA's headers lie, which TensorRT's include."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    found = [Path(nvcc).resolve().parents[1] / "include"] if nvcc else []
    found += [Path("/usr/local/cuda/include")]
    return next((folder for folder in found if (folder / "cuda_runtime_api.h").is_file()), None)


class Driver:
    """The library that stands in for TensorRT, with the plugin's library opened."""

    def __init__(self, library: Path, plugin: Path) -> None:
        self.library, self.plugin = ctypes.CDLL(str(library)), plugin
        self.major = self.library.major_version()
        for name in ("open_plugin", "take_errors"):
            getattr(self.library, name).restype = ctypes.c_char_p
        self.library.create.restype = ctypes.c_void_p
        self.library.create.argtypes = [ctypes.c_int32, ctypes.c_float]
        self.description = self.library.open_plugin(str(plugin).encode()).decode()

    def errors(self) -> str:
        """What the plugin logged since the last call."""
        return self.library.take_errors().decode()

    def create(self, kernel: int = 7, scale: float = 0.25) -> ctypes.c_void_p:
        """A plugin; a null pointer where it was refused."""
        return ctypes.c_void_p(self.library.create(kernel, scale))

    def supports(self, types: list[int], linear: bool = True) -> bool:
        """Whether a plugin takes inputs and gives an output of such types."""
        numbers = (ctypes.c_int32 * len(types))(*types)
        return bool(self.library.supports(self.create(), numbers, len(types) - 1, linear))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel: int
    ) -> tuple[Tensor, int, str]:
        """The result, the step of TensorRT's that failed or 0, and what was logged."""
        out = torch.full_like(q, float("nan"))
        data = [ctypes.c_void_p(t.data_ptr()) for t in (q, k, v)]
        bias = [ctypes.c_int32(0 if rpb is None else int(rpb.dtype == torch.float16))]
        bias += [ctypes.c_void_p(0 if rpb is None else rpb.data_ptr())]
        bias += [(ctypes.c_int32 * 3)(*(() if rpb is None else rpb.shape))]
        sizes = (ctypes.c_int32 * 5)(*q.shape)
        plugin, half = self.create(kernel, q.shape[-1] ** -0.5), int(q.dtype == torch.float16)
        step = self.library.attend(plugin, half, *data, *bias, ctypes.c_void_p(out.data_ptr()), sizes)
        return out, step, self.errors()


@pytest.fixture(
    scope="session", params=HEADERS or [None], ids=lambda path: "none" if path is None else str(path)
)
def driver(
    request: pytest.FixtureRequest,
    once: Callable[..., Path],
    compile_cpp: Callable[..., None],
    emulated_kernels: Path,
) -> Driver:
    headers, cuda = request.param, cuda_headers()
    if headers is None:
        pytest.skip("no TensorRT headers (set TENSORRT_INCLUDE_DIR)")
    if cuda is None:
        pytest.skip("no CUDA headers (set CUDACXX to nvcc)")

    def make(folder: Path) -> None:
        flags = ["-isystem", headers, "-isystem", cuda, "-shared", "-fPIC", "-fvisibility=hidden", "-ldl"]
        compile_cpp(SOURCES / "trt_plugin.cc", emulated_kernels, *flags, "-o", folder / "plugin.so")
        compile_cpp(HERE / "trt_plugin_driver.cc", *flags, "-o", folder / "driver.so")

    folder = once(f"trt_plugin_{HEADERS.index(headers)}", make)
    return Driver(folder / "driver.so", folder / "plugin.so")


def test_the_onnx_parser_finds_it_by_name_and_fields(driver: Driver) -> None:
    assert driver.description == "NeighborhoodAttention2D 1 '' kernel_size:5 scale:1"  # int32, float32


@pytest.mark.parametrize("inputs", [3, 4])
def test_the_output_has_the_shape_and_type_of_q(driver: Driver, inputs: int) -> None:
    assert driver.library.output_is_like_q(driver.create(), inputs)


def test_too_few_inputs_are_named(driver: Driver) -> None:
    assert not driver.library.output_is_like_q(driver.create(), 2)
    assert "expected the inputs q, k, v and optionally rpb, got 2" in driver.errors()


@pytest.mark.parametrize(
    ("types", "taken"),
    [
        ([FLOAT] * 4, True),
        ([HALF] * 4, True),
        ([FLOAT] * 5, True),
        ([HALF, HALF, HALF, FLOAT, HALF], True),
        ([HALF, HALF, FLOAT, HALF], False),
        ([HALF, HALF, HALF, FLOAT], False),
        ([INT32] * 4, False),
        ([FLOAT, FLOAT, FLOAT, INT32, FLOAT], False),
    ],
)
def test_it_takes_float_and_half_of_one_type(driver: Driver, types: list[int], taken: bool) -> None:
    assert driver.supports(types) == taken
    assert not driver.supports(types, linear=False)


def test_a_half_bias_is_taken_where_the_network_gives_the_types(driver: Driver) -> None:
    assert driver.supports([HALF] * 5) == (driver.major >= 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("bias", ["float", "half", "none"])
@pytest.mark.parametrize("kernel", [3, 7, 5])
def test_an_engine_gives_the_reference_result(
    driver: Driver, kernel: int, bias: str, dtype: torch.dtype
) -> None:
    q, k, v, rpb = problem((12, 21), 3, 16, kernel, dtype, batch=2)
    given = {"float": rpb, "half": rpb.half(), "none": None}[bias]
    out, step, said = driver.attend(q, k, v, given, kernel)
    assert (step, said) == (0, "")
    assert_right(out, q, k, v, given, kernel)


@pytest.mark.parametrize(
    ("kernel", "scale", "said"),
    [
        (4, 0.25, "expected an odd kernel_size from 1 to 255, got 4"),
        (0, 0.25, "expected an odd kernel_size from 1 to 255, got 0"),
        (7, -1.0, "expected a field scale, one float32"),  # left out
    ],
)
def test_wrong_fields_make_no_plugin(driver: Driver, kernel: int, scale: float, said: str) -> None:
    assert driver.create(kernel, scale).value is None
    assert said in driver.errors()


def test_a_dim_or_a_bias_that_does_not_fit_is_named_before_an_engine_is_built(driver: Driver) -> None:
    q, k, v, rpb = problem((9, 9), 2, 24, 7)
    assert driver.attend(q, k, v, rpb, 7)[1:] == (
        1,
        "NeighborhoodAttention2D: expected a dim of 16, 32 or 64, got 24\n",
    )
    q, k, v, rpb = problem((9, 9), 2, 16, 5)
    assert driver.attend(q, k, v, rpb, 7)[1:] == (
        1,
        "NeighborhoodAttention2D: expected rpb of shape [2,13,13], got [2,9,9]\n",
    )


REGISTRY = """
import sys, numpy, tensorrt as trt
registry = trt.get_plugin_registry()
assert registry.load_library(sys.argv[1]) is not None
creator = registry.get_plugin_creator("NeighborhoodAttention2D", "1", "")
assert ("NeighborhoodAttention2D", "1", "") in [
    (c.name, c.plugin_version, c.plugin_namespace) for c in registry.plugin_creator_list
]
assert [f.name for f in creator.field_names] == ["kernel_size", "scale"]
def plugin(kernel):
    return creator.create_plugin("layer", trt.PluginFieldCollection([
        trt.PluginField("kernel_size", numpy.array([kernel], numpy.int32), trt.PluginFieldType.INT32),
        trt.PluginField("scale", numpy.array([0.25], numpy.float32), trt.PluginFieldType.FLOAT32),
    ]))
made = plugin(7)
bytes_of = made.serialize()
again = creator.deserialize_plugin("layer", bytes_of).clone()
assert bytes(again.serialize()) == bytes(bytes_of) and len(bytes_of) == made.serialization_size
assert (again.plugin_type, again.plugin_version, again.num_outputs) == ("NeighborhoodAttention2D", "1", 1)
assert plugin(4) is None
print("registered in TensorRT", trt.__version__)
"""


def test_tensorrt_8_registers_it_makes_it_and_serialises_it(driver: Driver) -> None:
    python = os.environ.get("POLC_TENSORRT_PYTHON")
    if python is None:
        pytest.skip("no TensorRT (set POLC_TENSORRT_PYTHON to a Python that imports TensorRT 8)")
    if driver.major != 8:
        pytest.skip("built with the headers of a later TensorRT")
    command = [python, "-c", REGISTRY, driver.plugin]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "registered in TensorRT 8." in done.stdout
    assert "expected an odd kernel_size from 1 to 255, got 4" in done.stderr
