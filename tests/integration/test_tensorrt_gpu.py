"""Engines on a real GPU against ONNX Runtime on the processor."""

import numpy as np
import pytest

from polc_runtime import BackendUnavailable, Bundle, Codec
from polc_runtime.backends import BackendOptions, make_backend
from polc_runtime.backends.tensorrt.api import import_tensorrt
from polc_runtime.backends.tensorrt.cuda import Cuda

pytestmark = pytest.mark.gpu

SIZE = (192, 256)
EXACT, FP32, FP16 = 1e-4, 1e-3, 2e-2
"""Largest difference from ONNX Runtime, in standard deviations of the output."""


@pytest.fixture(scope="module")
def machine():
    """Skips, with the reason, where engines cannot be built."""
    try:
        return import_tensorrt().__version__, Cuda.open().device
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def bundle(machine, tmp_path_factory):
    """The packaged bundle with files for TensorRT in both precisions."""
    pytest.importorskip("onnx", reason="onnx, which writes the files for TensorRT, is not installed")
    from polc_export import ExportOptions, Formats, extend_bundle

    out = tmp_path_factory.mktemp("bundle") / "nano"
    return extend_bundle(
        Bundle.load("nano").path, out, ExportOptions(validate=False, formats=Formats(True, True))
    )[0]


@pytest.fixture(scope="module")
def cache(bundle, tmp_path_factory):
    """Engines of both precisions for small images."""
    from polc_export.tensorrt import EngineOptions, build_engines
    from polc_export.tensorrt.shapes import Batch, Shapes, Size

    folder = tmp_path_factory.mktemp("cache")
    shapes = Shapes(Size(192, 192), Size(*SIZE), Size(320, 320), Batch(1, 1, 2))
    for precision in ("fp32", "fp16"):
        build_engines(bundle, EngineOptions(shapes, precision, cache=folder / "engines"))
    return folder


@pytest.fixture
def start(bundle, cache, monkeypatch):
    monkeypatch.setenv("POLC_CACHE", str(cache))

    def open_backend(precision="fp32"):
        return make_backend("tensorrt", bundle, BackendOptions(precision))

    return open_backend


def distance(found, expected):
    return float(np.abs(found - expected).max() / expected.std())


def inputs(graph, rng, batch=1):
    units = {"batch": batch, "h": SIZE[0] // 64, "w": SIZE[1] // 64}

    def size(axis):
        factor, _, unit = axis.rpartition("*")
        return int(factor or 1) * units[unit]

    shapes = {n: [size(a) if isinstance(a, str) else a for a in axes] for n, axes in graph.inputs.items()}
    return {
        name: rng.uniform(1, 8, shape).astype(np.float32)
        if name == "quality"
        else rng.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(("precision", "limit"), [("fp32", FP32), ("fp16", FP16)])
def test_every_graph_gives_onnx_runtimes_numbers(start, bundle, precision, limit):
    pytest.importorskip("onnxruntime")
    reference = make_backend("onnxruntime", bundle, BackendOptions())
    backend = start(precision)
    for name in dict.fromkeys(graph.name for graph in bundle.manifest.graphs):
        graph = bundle.manifest.graph(name, precision)
        feeds = inputs(graph, np.random.default_rng(0), 1 if graph.exact else 2)
        expected = reference.run(name, feeds)
        for output, value in backend.run(name, feeds).items():
            assert distance(value, expected[output]) <= (EXACT if graph.exact else limit), (name, output)


def test_captured_runs_give_the_same_bits_as_the_first(start, bundle):
    backend = start()
    for name in ("hyper_synthesis", "context_0", "context_1"):
        feeds = inputs(bundle.manifest.graph(name), np.random.default_rng(1))
        first = backend.run(name, feeds)
        for _ in range(4):
            for output, value in backend.run(name, feeds).items():
                np.testing.assert_array_equal(value, first[output])


def test_a_file_made_on_the_gpu_decodes_on_the_processor_and_back(start, bundle):
    pytest.importorskip("onnxruntime")
    image = np.random.default_rng(2).integers(0, 256, (180, 250, 3), np.uint8)
    with Codec(bundle, start()) as gpu, Codec(bundle) as cpu:
        assert (
            np.abs(
                gpu.decompress(cpu.compress(image)).astype(int) - cpu.decompress(gpu.compress(image))
            ).max()
            <= 2
        )
