"""The backends that torch runs: the model of a checkpoint, devices, clocks, precision."""

from pathlib import Path

import numpy as np
import pytest
import torch

from polc import load_checkpoint, save_checkpoint
from polc.backends.device import resolve_device
from polc.backends.torch import TorchBackend, load_backend
from polc.backends.torchscript import move_constants
from polc_runtime import BackendUnavailable, Bundle, Codec
from polc_runtime.backends import BackendOptions, DeviceTimed
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.errors import CheckpointError, UsageError

NANO = Path(__file__).resolve().parents[2] / "models/polc-nano/polc-nano.safetensors"

no_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
without_device = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


@pytest.fixture(scope="module")
def bundle():
    return Bundle.load("nano")


def options(checkpoint=NANO, **more):
    return BackendOptions(threads=1, checkpoint=checkpoint, **more)


def test_the_model_codes_and_predicts_as_the_bundle_does(bundle):
    pixels = synthetic_picture(200, 256)
    with (
        Codec(bundle, load_backend(bundle, options()), options()) as model,
        Codec(bundle, "onnxruntime", BackendOptions(threads=1)) as graphs,
    ):
        data = model.compress(pixels, 4)
        assert np.abs(model.decompress(data).astype(int) - graphs.decompress(data)).max() <= 1
        for task in ("cifar10", "camvid"):
            found, expected = model.infer(data, task), graphs.infer(data, task)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_the_checkpoint_must_be_the_bundles(bundle, tmp_path):
    with pytest.raises(UsageError, match="name the bundle's by checkpoint="):
        load_backend(bundle, BackendOptions())
    codec = load_checkpoint(NANO).codec
    path = tmp_path / "codec.safetensors"
    save_checkpoint(path, codec)
    with Codec(bundle, load_backend(bundle, options(path)), options(path)) as without_tasks:
        data = without_tasks.compress(synthetic_picture(64, 64), 4)
        with pytest.raises(CheckpointError, match="the checkpoint has no graph task_camvid; it has "):
            without_tasks.infer(data, "camvid")
    codec.gain.data += 1
    save_checkpoint(path, codec)
    with pytest.raises(CheckpointError, match="is another codec than the bundle's"):
        load_backend(bundle, options(path))


def test_fp16_is_near_and_leaves_the_exact_graphs_alone(bundle):
    full, half = (load_backend(bundle, options(precision=name)) for name in ("fp32", "fp16"))
    generator = np.random.default_rng(0)
    image = {"image": generator.random((1, 3, 192, 192), np.float32), "quality": np.array([4], np.float32)}
    expected, found = (backend.run("analysis", image)["y"] for backend in (full, half))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - expected).max() < 0.05 * expected.std()
    z_hat = {
        **image,
        "z_hat": generator.standard_normal((1, bundle.manifest.plan.hyper.channels, 3, 3), np.float32),
    }
    np.testing.assert_array_equal(
        *(backend.run("hyper_synthesis", z_hat)["params"] for backend in (full, half))
    )


def test_graphs_are_timed_once_it_is_asked_for():
    backend = TorchBackend(load_checkpoint(NANO).codec)
    assert isinstance(backend, DeviceTimed) and backend.clock == "host clock"
    feeds = {"image": np.zeros((1, 3, 192, 192), np.float32), "quality": np.array([4], np.float32)}
    backend.run("analysis", feeds)
    assert backend.graph_seconds() == {}
    backend.time_graphs()
    backend.run("analysis", feeds)
    assert backend.graph_seconds()["analysis"] > 0 and backend.graph_seconds() == {}


@without_device
def test_cuda_without_a_device_is_refused_with_what_to_do(bundle):
    with pytest.raises(BackendUnavailable, match="torch cannot run on cuda: torch .* finds no CUDA device; "):
        load_backend(bundle, options(device="cuda"))
    with pytest.raises(BackendUnavailable, match="or choose --device cpu"):
        resolve_device("cuda", "torchscript")


@without_device
def test_traces_that_name_a_device_are_moved():
    class Indexes(torch.nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[0], device=x.device)

    traced = torch.jit.freeze(torch.jit.trace(Indexes().eval(), torch.zeros(3)))
    assert "cuda" not in str(traced.graph)
    move_constants(traced, torch.device("cuda"))
    assert '"cuda"' in str(traced.graph)
    with pytest.raises(RuntimeError, match="NVIDIA|CUDA"):
        traced(torch.zeros(3))


@pytest.mark.gpu
@no_device
def test_a_device_codes_as_the_processor_does():
    pixels, bundle = synthetic_picture(300, 260), Bundle.load("nano")
    on_device, on_processor = (BackendOptions(device=name, checkpoint=NANO) for name in ("cuda", "cpu"))
    with (
        Codec(bundle, load_backend(bundle, on_device)) as device,
        Codec(bundle, load_backend(bundle, on_processor)) as processor,
    ):
        facts = device.describe()["backend"]
        assert facts["device"] == "cuda" and facts["gpu"]
        data = device.compress(pixels, 4)
        assert data == device.compress(pixels, 4), "the device is not deterministic"
        found, expected = device.decompress(data), processor.decompress(processor.compress(pixels, 4))
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        device.backend.time_graphs()
        device.compress(pixels, 4)
        assert device.backend.clock == "CUDA events"
        assert all(0 < seconds < 10 for seconds in device.backend.graph_seconds().values())
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
