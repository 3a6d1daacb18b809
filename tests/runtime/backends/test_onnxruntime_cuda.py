"""ONNX Runtime on CUDA devices: refusals, settings, and its bound memory, which is tried on the processor."""

import numpy as np
import onnxruntime as ort
import pytest

from polc_runtime import BackendUnavailable, Bundle, Codec, UsageError
from polc_runtime.backends import BackendOptions, DeviceTimed, backend_on, make_backend
from polc_runtime.backends.onnxruntime import EXACT_LEVEL, OnnxRuntimeBackend
from polc_runtime.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from polc_runtime.backends.op_library import NO_OPS, find_cuda_ops
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.cli import main
from polc_runtime.pictures.images import encode_image

has_provider = "CUDAExecutionProvider" in ort.get_available_providers()


class OnProcessor(OnnxRuntimeCudaBackend):
    """The same binding of memory with the processor's provider."""

    provider = "CPUExecutionProvider"
    device = "cpu"

    def _find_ops(self):
        return NO_OPS

    def _provider_options(self, graph):
        return {}


@pytest.fixture(scope="module")
def bundle():
    return Bundle.load("nano")


@pytest.mark.skipif(has_provider, reason="this ONNX Runtime has the CUDA provider")
def test_without_the_provider_the_one_command_is_told():
    for name, device in (("onnxruntime", "cuda"), ("onnxruntime-cuda", "cpu"), ("onnxruntime-cuda", "cuda")):
        with pytest.raises(BackendUnavailable) as caught:
            Codec.load("nano", backend=name, device=device)
        assert "needs the CUDAExecutionProvider" in str(caught.value)
        assert str(caught.value).endswith(": pip uninstall onnxruntime && pip install onnxruntime-gpu")


@pytest.mark.skipif(has_provider, reason="this ONNX Runtime has the CUDA provider")
def test_the_command_line_tells_it_in_one_line(tmp_path, capsys):
    encoded = encode_image(synthetic_picture(64, 64))
    (tmp_path / "a.png").write_bytes(encoded)
    arguments = ["compress", str(tmp_path / "a.png"), "-o", str(tmp_path / "a.polc"), "--bundle", "nano"]
    assert main([*arguments, "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("polc: error: the backend onnxruntime-cuda needs") and "pip install" in line
    assert not (tmp_path / "a.polc").exists()


def test_the_device_decides_the_backend():
    assert backend_on("onnxruntime", "cuda") == "onnxruntime-cuda"
    assert backend_on("onnxruntime", "cpu") == "onnxruntime"
    assert backend_on("torch", "cuda") == "torch"
    with pytest.raises(UsageError, match="no device is named 'gpu'; there are cpu, cuda"):
        BackendOptions(device="gpu")


def test_bound_memory_gives_what_plain_runs_give(bundle):
    options = BackendOptions(threads=1, native_ops=False)
    bound, plain = OnProcessor(bundle, options), OnnxRuntimeBackend(bundle, options)
    pixels = synthetic_picture(100, 140)
    with Codec(bundle, bound, options) as ours, Codec(bundle, plain, options) as theirs:
        data = ours.compress(pixels, 5)
        assert data == theirs.compress(pixels, 5)
        np.testing.assert_array_equal(ours.decompress(data), theirs.decompress(data))
        np.testing.assert_array_equal(ours.infer(data, "camvid"), theirs.infer(data, "camvid"))


def test_graphs_are_timed_once_it_is_asked_for(bundle):
    backend = OnProcessor(bundle, BackendOptions(threads=1))
    assert isinstance(backend, DeviceTimed) and not isinstance(
        make_backend("onnxruntime", bundle, BackendOptions()), DeviceTimed
    )
    feeds = {"z_hat": np.zeros((1, bundle.manifest.plan.hyper.channels, 3, 3), np.float32)}
    feeds["quality"] = np.array([4], np.float32)
    backend.run("hyper_synthesis", feeds)
    assert backend.graph_seconds() == {}
    backend.time_graphs()
    for _ in range(2):
        backend.run("hyper_synthesis", feeds)
    assert backend.graph_seconds()["hyper_synthesis"] > 0 and backend.graph_seconds() == {}


def test_exact_graphs_have_fixed_algorithms_and_nothing_has_tf32(bundle):
    class Settings(OnProcessor):
        _provider_options = OnnxRuntimeCudaBackend._provider_options

    backend = Settings(bundle, BackendOptions(threads=1))
    settings = {}
    for name in ("context_0", "hyper_synthesis", "analysis"):
        graph = bundle.manifest.graph(name)
        found, options = backend._provider_options(graph), backend._session_options(graph)
        assert found["use_tf32"] == "0"
        settings[name] = (
            found["cudnn_conv_algo_search"],
            options.use_deterministic_compute,
            options.graph_optimization_level == EXACT_LEVEL,
        )
    assert settings["context_0"] == settings["hyper_synthesis"] == ("DEFAULT", True, True)
    assert settings["analysis"] == ("HEURISTIC", False, False)


def test_a_provider_that_does_not_start_is_no_silent_run_on_the_processor(bundle):
    class Fallen(OnProcessor):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.provider = "CUDAExecutionProvider"

    backend = Fallen(bundle, BackendOptions())
    with pytest.raises(
        BackendUnavailable, match=r"cannot start: .* install NVIDIA's driver, and CUDA and cuDNN"
    ):
        backend.run("context_0", {})


def test_cuda_operators_that_are_missing_have_a_reason(monkeypatch, tmp_path):
    monkeypatch.setattr("polc_runtime.__path__", [str(tmp_path)])
    assert "built without CUDA operators" in find_cuda_ops().reason
    (tmp_path / "libpolc_ops_cuda.so").write_bytes(b"no library")
    found = find_cuda_ops()
    assert not found.registers and "does not load" in found.reason
    assert found.attention.startswith("portable (")


@pytest.mark.gpu
@pytest.mark.skipif(not has_provider, reason="this ONNX Runtime has no CUDA provider")
def test_a_device_codes_as_the_processor_does(bundle):
    pixels = synthetic_picture(300, 260)
    with Codec.load("nano", device="cuda") as device, Codec.load("nano") as processor:
        assert device.describe()["backend"]["device"] == "cuda"
        data = device.compress(pixels, 4)
        assert data == device.compress(pixels, 4)
        found, expected = device.decompress(data), processor.decompress(processor.compress(pixels, 4))
        assert np.abs(found.astype(int) - expected).mean() < 0.1
