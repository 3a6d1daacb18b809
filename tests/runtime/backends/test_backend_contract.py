"""What every backend promises: its device, an error once it is closed, a name for running out of memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from polc.backends.torch import load_backend
from polc.backends.torchscript import TorchScriptBackend
from polc_runtime import Bundle, Codec
from polc_runtime.backends import BackendBase, BackendOptions, FloatArray, make_backend
from polc_runtime.backends.made_once import MadeOnce
from polc_runtime.backends.onnxruntime import KEPT_PIXELS, OnnxRuntimeBackend
from polc_runtime.backends.wrapper import BackendWrapper
from polc_runtime.errors import ResourceError, UsageError

NANO = Path(__file__).resolve().parents[3] / "models/polc-nano/polc-nano.safetensors"
BACKENDS = ("onnxruntime", "torch", "torchscript")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load("nano")


def feeds(bundle: Bundle) -> dict[str, FloatArray]:
    shape = (1, bundle.manifest.plan.hyper.channels, 3, 3)
    return {"z_hat": np.zeros(shape, np.float32), "quality": np.array([4], np.float32)}


class Traced(TorchScriptBackend):
    """The backend without a bundle's files: a module takes the place of what it would load."""

    def __init__(self, bundle: Bundle, options: BackendOptions, module: Callable[..., object]) -> None:
        from polc.backends.device import DeviceBackend

        DeviceBackend.__init__(self, options, resolve_device("cpu", self.name))
        self.bundle, self._modules = bundle, MadeOnce()
        self._modules.get("hyper_synthesis", lambda: module)


def resolve_device(name: str, backend: str) -> object:
    from polc.backends.device import resolve_device

    return resolve_device(name, backend)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[BackendBase]:
    options = BackendOptions(threads=1, checkpoint=NANO)
    if request.param == "onnxruntime":
        made: BackendBase = OnnxRuntimeBackend(bundle, options)
    elif request.param == "torch":
        made = load_backend(bundle, options)
    else:
        import torch

        made = Traced(bundle, options, lambda z, q: torch.zeros(1, 320, 12, 12))
    yield made
    made.close()


def test_a_backend_says_where_it_runs(backend: BackendBase) -> None:
    assert backend.device == "cpu" and BackendWrapper(backend).device == "cpu"


def test_a_closed_backend_refuses_to_run(backend: BackendBase, bundle: Bundle) -> None:
    assert backend.run("hyper_synthesis", feeds(bundle))["params"].shape == (1, 320, 12, 12)
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match=f"the backend {backend.name} is closed: make another") as caught:
        backend.run("hyper_synthesis", feeds(bundle))
    assert caught.value.kind == "usage"


def test_a_closed_codec_refuses_to_decode() -> None:
    codec = Codec.load("nano")
    data = codec.compress(np.zeros((64, 64, 3), np.uint8))
    codec.close()
    with pytest.raises(UsageError, match="the backend onnxruntime is closed"):
        codec.decompress(data)


class Failing(BackendBase):
    """A backend whose library fails in some way."""

    name = "failing"

    def __init__(self, error: Exception, cause: Exception | None = None) -> None:
        super().__init__(BackendOptions())
        self.error, self.cause = error, cause

    def _run(self, graph: str, inputs: object) -> dict[str, FloatArray]:
        raise self.error from self.cause


@pytest.mark.parametrize(
    "text",
    [
        "[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 9",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
        "Available memory of 0 is smaller than requested bytes of 1024",
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA: cudaMalloc failed: out of memory (cudaErrorMemoryAllocation)",
    ],
)
def test_what_libraries_say_where_memory_runs_out_is_a_resource_error(text: str) -> None:
    for failing in (Failing(RuntimeError(text)), Failing(ValueError("failed"), RuntimeError(text))):
        with pytest.raises(ResourceError, match="memory ran out in the graph g on the backend failing"):
            failing.run("g", {})
    with pytest.raises(ResourceError):
        Failing(MemoryError()).run("g", {})


def test_other_errors_stay_what_they_are() -> None:
    for error in (KeyError("image"), RuntimeError("an operator is missing"), UsageError("no")):
        with pytest.raises(type(error)):
            Failing(error).run("g", {})


def test_memory_that_onnxruntime_really_lacks_is_a_resource_error(bundle: Bundle) -> None:
    class Greedy(OnnxRuntimeBackend):
        def _execute(self, *arguments: object) -> list[FloatArray]:
            return allocate_too_much()

    with pytest.raises(ResourceError, match="use smaller images"):
        Greedy(bundle, BackendOptions(threads=1)).run("hyper_synthesis", feeds(bundle))


def allocate_too_much() -> list[FloatArray]:
    """Has ONNX Runtime make a tensor larger than any memory."""
    from onnx import TensorProto, helper

    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [1])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    node = helper.make_node("ConstantOfShape", ["shape"], ["out"])
    graph = helper.make_graph([node], "huge", [shape], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[FloatArray] = session.run(None, {"shape": np.array([1 << 46], np.int64)})
    return found


def test_memory_that_torch_really_lacks_is_a_resource_error(bundle: Bundle) -> None:
    import torch

    def module(z: object, q: object) -> object:
        return torch.zeros(1 << 46)

    with pytest.raises(ResourceError, match="use smaller images"):
        Traced(bundle, BackendOptions(threads=1), module).run("hyper_synthesis", feeds(bundle))


def test_the_making_of_one_value_does_not_delay_another() -> None:
    made: MadeOnce[str, str] = MadeOnce()
    started, release, calls = threading.Event(), threading.Event(), []

    def slow() -> str:
        calls.append("slow")
        started.set()
        assert release.wait(10)
        return "slow"

    threads = [threading.Thread(target=made.get, args=("slow", slow)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    assert made.get("quick", lambda: "quick") == "quick"  # while `slow` is under way
    release.set()
    for thread in threads:
        thread.join(10)
    assert calls == ["slow"] and made.get("slow", slow) == "slow"


def test_a_value_that_could_not_be_made_is_tried_again() -> None:
    made: MadeOnce[str, int] = MadeOnce()
    with pytest.raises(ZeroDivisionError):
        made.get("a", lambda: 1 // 0)
    assert made.get("a", lambda: 1) == 1


@pytest.mark.parametrize(
    ("name", "shape", "pixels"),
    [
        ("image", (1, 3, 1024, 1088), 1024 * 1088),
        ("image", (1, 3, 512, 512), 512 * 512),
        ("y_hat", (2, 160, 48, 64), 2 * 768 * 1024),
        ("params", (1, 320, 64, 64), 1024 * 1024),
        ("z_hat", (1, 48, 17, 16), 1088 * 1024),
    ],
)
def test_memory_is_given_back_after_a_run_on_large_images(
    bundle: Bundle, name: str, shape: tuple[int, ...], pixels: int
) -> None:
    backend = OnnxRuntimeBackend(bundle, BackendOptions(threads=1))
    inputs = {name: np.zeros(shape, np.float32), "quality": np.zeros(shape[0], np.float32)}
    assert backend._pixels(inputs) == pixels
    options = backend._run_options(inputs)
    if pixels > KEPT_PIXELS:
        assert options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            options.get_run_config_entry("memory.enable_memory_arena_shrinkage")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp8"}, "no precision is named 'fp8'; there are fp32, fp16, fp64"),
        ({"device": "gpu"}, "no device is named 'gpu'; there are cpu, cuda"),
        ({"threads": 0}, "threads must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_options_that_no_backend_has_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_backend("onnxruntime", Bundle.load("nano"), BackendOptions(**options))
