"""The TensorRT backend on an emulated GPU, and what it says where something is missing."""

import dataclasses
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from emulated_gpu import CAPABILITY, GPU, EmulatedRuntime, EmulatedTensorRt

from polc_runtime import BackendUnavailable, Bundle, BundleError, Codec, PolcError, UsageError
from polc_runtime.backends import BackendOptions, DeviceTimed, backend_names
from polc_runtime.backends.tensorrt.backend import TensorRtBackend
from polc_runtime.backends.tensorrt.cuda import RUNTIMES
from polc_runtime.backends.tensorrt.engine_cache import EngineKey, Range, Target, store
from polc_runtime.bundle import StoredFile
from polc_runtime.errors import ResourceError

VERSIONS = ("8.6.0", "10.13.3.9")
SMALLEST, LARGEST = 192, 512


def target(version):
    return Target(GPU, ".".join(map(str, CAPABILITY)), version)


def ranges(graph, largest=LARGEST):
    """From 192x192 to largest x largest, batch 1 to 2 where the graph may have it."""

    def shape(axes, side, batch):
        units = {"batch": batch, "h": side // 64, "w": side // 64}

        def size(axis):
            factor, _, unit = axis.rpartition("*")
            return int(factor or 1) * units[unit]

        return tuple(size(axis) if isinstance(axis, str) else axis for axis in axes)

    batch = 1 if graph.exact else 2
    return {
        name: Range(shape(axes, SMALLEST, 1), shape(axes, SMALLEST, 1), shape(axes, largest, batch))
        for name, axes in graph.inputs.items()
    }


def with_files(bundle, variant="tensorrt"):
    """The bundle as if it held TensorRT's ONNX files; their hashes are those of the plain ones."""
    graphs = [
        dataclasses.replace(g, formats={variant: StoredFile(f"graphs/{g.name}.trt.onnx", g.sha256)})
        for g in bundle.manifest.graphs
    ]
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graphs=tuple(graphs)))


def fill(cache, bundle, version, variant="tensorrt", names=None, largest=LARGEST):
    for graph in bundle.manifest.graphs:
        if names is None or graph.name in names:
            key = EngineKey(
                graph.name, graph.sha256, variant, "fp32", False, ranges(graph, largest), target(version)
            )
            store(cache, key, f"engine of {graph.name}".encode(), {})


@pytest.fixture(scope="module")
def bundle():
    return with_files(Bundle.load("nano"))


@pytest.fixture
def emulate(monkeypatch, bundle, tmp_path):
    """Puts an emulated CUDA and TensorRT in the place of the real ones; engines go to `tmp_path`."""

    def start(version="8.6.0", limit=1 << 32, **settings):
        cuda = EmulatedRuntime(limit)
        trt = EmulatedTensorRt(cuda, bundle, version, **settings)
        monkeypatch.setitem(sys.modules, RUNTIMES[0], cuda)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return cuda, trt

    return start


@pytest.fixture
def backend(emulate, bundle, tmp_path):
    emulate()
    fill(tmp_path, bundle, "8.6.0")
    made = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    yield made
    made.close()


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def entropy_inputs(bundle, h=3, w=4, seed=0):
    shape = (1, bundle.manifest.plan.hyper.channels, h, w)
    z_hat = np.rint(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)
    return {"z_hat": z_hat, "quality": np.array([3.0], np.float32)}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_codec_on_it_writes_and_reads_what_the_computing_backend_does(emulate, bundle, tmp_path, version):
    cuda, trt = emulate(version)
    fill(tmp_path, bundle, version)
    with Codec(bundle, TensorRtBackend(bundle, BackendOptions(), tmp_path)) as ours:
        theirs = Codec(bundle, trt.computes)
        for image in (picture(200, 250), picture(64, 300), picture(200, 250)):
            data = ours.compress(image, 3.5)
            assert data == theirs.compress(image, 3.5)
            np.testing.assert_array_equal(ours.decompress(data), theirs.decompress(data))
    assert cuda.launches > 0 and cuda.blocks == {} and cuda.streams == 0


def test_without_cuda_graphs_nothing_is_captured(emulate, bundle, tmp_path, monkeypatch):
    cuda, _ = emulate()
    fill(tmp_path, bundle, "8.6.0")
    monkeypatch.setenv("POLC_CUDA_GRAPHS", "off")
    with Codec(bundle, TensorRtBackend(bundle, BackendOptions(), tmp_path)) as codec:
        data = codec.compress(picture(200, 250))
        codec.decompress(data)
    assert cuda.launches == 0


def test_an_engine_that_cannot_be_captured_runs_all_the_same(emulate, bundle, tmp_path):
    cuda, trt = emulate(capturable=False)
    fill(tmp_path, bundle, "8.6.0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    feeds = entropy_inputs(bundle)
    expected = trt.computes.run("hyper_synthesis", feeds)["params"]
    for _ in range(4):
        np.testing.assert_array_equal(backend.run("hyper_synthesis", feeds)["params"], expected)
    assert cuda.launches == 0


def test_parameters_stay_on_the_device_between_the_steps(emulate, bundle, tmp_path):
    cuda, _ = emulate()
    fill(tmp_path, bundle, "8.6.0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    params = backend.run("hyper_synthesis", entropy_inputs(bundle))["params"]
    before = cuda.to_device
    context = backend.run("context_0", {"params": params})["channel_context"]
    assert cuda.to_device == before
    y_hat = np.zeros((1, bundle.manifest.plan.latent.channels, *params.shape[2:]), np.float32)
    backend.run("context_1", {"params": params, "channel_context": context, "y_hat": y_hat})
    assert cuda.to_device - before == y_hat.nbytes
    with pytest.raises(ValueError, match="read-only"):
        params[...] = 0


def test_another_array_of_the_same_name_is_copied(backend, bundle):
    first = backend.run("hyper_synthesis", entropy_inputs(bundle, seed=1))["params"]
    second = backend.run("hyper_synthesis", entropy_inputs(bundle, seed=2))["params"]
    expected = backend._trt.computes
    for params in (first, second, first, first.copy(), second):
        found = backend.run("context_0", {"params": params})
        for name, value in expected.run("context_0", {"params": params}).items():
            np.testing.assert_array_equal(found[name], value)


def test_memory_that_an_output_was_written_to_no_longer_counts_as_the_array_before(backend, bundle):
    first = backend.run("hyper_synthesis", entropy_inputs(bundle, seed=1))["params"]
    (engine,) = (one for one in backend._loaded._values.values() if one.key.graph == "hyper_synthesis")
    engine.kept = ()
    backend.run("hyper_synthesis", entropy_inputs(bundle, seed=2))
    found = backend.run("context_0", {"params": first})["means"]
    np.testing.assert_array_equal(found, backend._trt.computes.run("context_0", {"params": first})["means"])


def test_a_captured_run_is_captured_again_once_another_graph_has_moved_its_memory(backend, bundle):
    rng = np.random.default_rng(0)
    channels = bundle.manifest.plan.latent.channels

    def y_hat(batch, side):
        return rng.standard_normal((batch, channels, side, side), np.float32)

    feeds = {
        "params": rng.standard_normal((1, 2 * channels, 12, 12), np.float32),
        "channel_context": rng.standard_normal((1, 24, 12, 12), np.float32),
    }

    def check():
        given = {**feeds, "y_hat": y_hat(1, 12)}
        expected = backend._trt.computes.run("context_1", given)
        np.testing.assert_array_equal(backend.run("context_1", given)["means"], expected["means"])

    for _ in range(3):
        check()
    assert backend._cuda.api.launches == 2
    backend.run("synthesis", {"y_hat": y_hat(2, 32), "quality": np.full(2, 3, np.float32)})
    for _ in range(2):
        check()


def test_what_was_given_out_is_not_changed_by_later_runs(backend, bundle):
    first = backend.run("hyper_synthesis", entropy_inputs(bundle, seed=1))["params"]
    before = first.copy()
    second = backend.run("hyper_synthesis", entropy_inputs(bundle, seed=2))["params"]
    np.testing.assert_array_equal(first, before)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("streams", [1, 2, 3])
def test_many_threads_share_a_fixed_number_of_streams(emulate, bundle, tmp_path, streams):
    cuda, trt = emulate()
    fill(tmp_path, bundle, "8.6.0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path, streams=streams)
    with Codec(bundle, backend) as codec, ThreadPoolExecutor(6) as pool:
        images = [picture(190 + i, 200) for i in range(6)]
        expected = [Codec(bundle, trt.computes).compress(image) for image in images]
        assert list(pool.map(codec.compress, images)) == expected
        assert 1 <= cuda.streams <= streams
    assert cuda.streams == 0


def test_no_streams_are_refused(emulate, bundle, tmp_path):
    emulate()
    with pytest.raises(UsageError, match="streams must be at least 1, got 0"):
        TensorRtBackend(bundle, BackendOptions(), tmp_path, streams=0)


def test_a_thread_waits_for_a_stream(backend, bundle):
    feeds, ran = entropy_inputs(bundle), threading.Event()

    def run():
        backend.run("hyper_synthesis", feeds)
        ran.set()

    with backend._streams.stream(), backend._streams.stream():
        thread = threading.Thread(target=run)
        thread.start()
        assert not ran.wait(0.2)
    assert ran.wait(10)
    thread.join()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_runs_on_several_streams_at_once(emulate, bundle, tmp_path, version):
    """Before TensorRT 10 a second context of an engine has no profile until one is set."""
    cuda, trt = emulate(version)
    fill(tmp_path, bundle, version)
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    feeds = entropy_inputs(bundle)
    first = backend.run("hyper_synthesis", feeds)["params"]
    with backend._streams.stream():  # held, so that the next run makes another
        second = backend.run("hyper_synthesis", feeds)["params"]
    np.testing.assert_array_equal(first, second)
    assert trt.opened == ["engine of hyper_synthesis"] and cuda.streams == 2
    backend.close()


def test_graphs_are_timed_once_that_is_asked_for(backend, bundle):
    assert isinstance(backend, DeviceTimed)
    backend.run("hyper_synthesis", entropy_inputs(bundle))
    assert backend.graph_seconds() == {}
    backend.time_graphs()
    backend.run("hyper_synthesis", entropy_inputs(bundle))
    assert backend.graph_seconds()["hyper_synthesis"] > 0 and backend.graph_seconds() == {}


def test_it_says_what_it_runs_on(backend):
    facts = backend.describe()
    assert facts["device"] == "cuda" and facts["gpu"] == GPU and facts["version"] == "8.6.0"
    assert facts["attention"].startswith("inlined (") and facts["cuda_graphs"]


def test_a_full_device_is_one_line_and_the_next_run_works(emulate, bundle, tmp_path):
    cuda, _ = emulate(limit=3 << 20)
    fill(tmp_path, bundle, "8.6.0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    with pytest.raises(ResourceError, match=r"use smaller images .*cudaErrorMemoryAllocation") as caught:
        backend.run("hyper_synthesis", entropy_inputs(bundle))
    assert "\n" not in str(caught.value) and cuda.blocks == {}
    cuda.limit = 1 << 32
    assert backend.run("hyper_synthesis", entropy_inputs(bundle))["params"].shape[2:] == (12, 16)


def test_the_engine_for_the_smallest_images_that_do_is_taken(emulate, bundle, tmp_path):
    _, trt = emulate()
    fill(tmp_path, bundle, "8.6.0", largest=1024)
    fill(tmp_path, bundle, "8.6.0", largest=256)
    engines = TensorRtBackend(bundle, BackendOptions(), tmp_path).engines
    sides = {}
    for side in (192, 320):
        shapes = {"image": (1, 3, side, side), "quality": (1,)}
        sides[side] = engines.choose("analysis", shapes).key.ranges["image"].max[-1]
    assert sides == {192: 256, 320: 1024} and trt.opened == []


def test_an_image_beyond_every_engine_is_refused_with_the_shapes_they_take(backend, bundle):
    feeds = {"image": np.zeros((1, 3, 192, 576), np.float32), "quality": np.ones(1, np.float32)}
    with pytest.raises(BackendUnavailable) as caught:
        backend.run("analysis", feeds)
    message = str(caught.value)
    assert "no engine of analysis takes image [1, 3, 192, 576]" in message
    assert "[1, 3, 192, 192] to [2, 3, 512, 512]" in message and "--max-shape" in message


def test_a_machine_that_only_decodes_needs_no_engine_of_the_analysis(emulate, bundle, tmp_path):
    _, trt = emulate()
    names = {graph.name for graph in bundle.manifest.graphs if graph.exact} | {"synthesis"}
    fill(tmp_path, bundle, "8.6.0", names=names)
    data = Codec(bundle, trt.computes).compress(picture(200, 250))
    with Codec(bundle, TensorRtBackend(bundle, BackendOptions(), tmp_path)) as codec:
        assert codec.decompress(data).shape == (200, 250, 3)
        with pytest.raises(BackendUnavailable, match="there is no engine of analysis"):
            codec.compress(picture(200, 250))


def test_no_engines_say_how_to_build_them(emulate, bundle, tmp_path):
    emulate()
    with pytest.raises(BackendUnavailable, match="polc-export --bundle .*nano.* --format tensorrt") as caught:
        TensorRtBackend(bundle, BackendOptions(), tmp_path)
    assert f"there is no engine of hyper_synthesis (fp32) in {tmp_path}" in str(caught.value)


def test_a_bundle_without_tensorrt_files_says_where_to_write_them(emulate, tmp_path):
    emulate()
    with pytest.raises(BackendUnavailable, match="has no TensorRT files of hyper_synthesis"):
        TensorRtBackend(Bundle.load("nano"), BackendOptions(), tmp_path)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Target(GPU, "9.0", "8.6.1"), "the engines there are for TensorRT 8.6.1, this is TensorRT 8.6.0"),
        (Target("NVIDIA T4", "7.5", "8.6.0"), "for compute capability 7.5, this is compute capability 9.0"),
        (Target("NVIDIA H100", "9.0", "8.6.0"), f"for GPU NVIDIA H100, this is GPU {GPU}"),
    ],
)
def test_engines_of_another_gpu_or_version_are_refused_unopened(emulate, bundle, tmp_path, other, reason):
    _, trt = emulate()
    for graph in bundle.manifest.graphs:
        key = EngineKey(graph.name, graph.sha256, "tensorrt", "fp32", False, ranges(graph), other)
        store(tmp_path, key, f"engine of {graph.name}".encode(), {})
    with pytest.raises(BackendUnavailable) as caught:
        TensorRtBackend(bundle, BackendOptions(), tmp_path)
    assert reason in str(caught.value) and trt.opened == []


def test_an_engine_that_needs_the_plugin_names_it(emulate, tmp_path, monkeypatch):
    monkeypatch.setenv("POLC_TRT_PLUGIN", "none")
    emulate()
    bundle = with_files(Bundle.load("nano"), "tensorrt-plugin")
    fill(tmp_path, bundle, "8.6.0", "tensorrt-plugin")
    with pytest.raises(BackendUnavailable) as caught:
        TensorRtBackend(bundle, BackendOptions(), tmp_path)
    message = str(caught.value)
    assert "needs the plugin NeighborhoodAttention2D, which is not here: POLC_TRT_PLUGIN=none" in message
    assert message.endswith("--inlined")


@pytest.mark.parametrize("version", VERSIONS)
def test_where_the_plugin_loads_its_engines_are_taken(emulate, tmp_path, monkeypatch, version):
    library = tmp_path / "libpolc_trt_plugin.so"
    library.touch()
    monkeypatch.setenv("POLC_TRT_PLUGIN", str(library))
    emulate(version)
    bundle = with_files(Bundle.load("nano"), "tensorrt-plugin")
    fill(tmp_path, bundle, version, "tensorrt-plugin")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    assert backend.describe()["attention"] == "plugin"
    assert backend.run("hyper_synthesis", entropy_inputs(bundle))["params"].shape[2:] == (12, 16)
    with pytest.raises(BackendUnavailable, match="needs the plugin .*: the plugin was not asked for"):
        TensorRtBackend(bundle, BackendOptions(native_ops=False), tmp_path)


def test_a_plugin_library_of_another_tensorrt_is_an_error_that_says_so(
    emulate, bundle, tmp_path, monkeypatch
):
    library = tmp_path / "other.so"
    library.touch()
    emulate()
    monkeypatch.setenv("POLC_TRT_PLUGIN", str(library))
    with pytest.raises(
        BackendUnavailable, match=r"TensorRT 8\.6\.0 does not take other.so, perhaps built for"
    ):
        TensorRtBackend(bundle, BackendOptions(), tmp_path)


def test_a_named_plugin_library_that_is_not_there_is_an_error(emulate, bundle, tmp_path, monkeypatch):
    emulate()
    monkeypatch.setenv("POLC_TRT_PLUGIN", str(tmp_path / "none.so"))
    with pytest.raises(BackendUnavailable, match=r"POLC_TRT_PLUGIN=.*none.so: no such file; unset it"):
        TensorRtBackend(bundle, BackendOptions(), tmp_path)


def test_a_damaged_engine_is_refused_unopened(emulate, bundle, tmp_path):
    _, trt = emulate()
    fill(tmp_path, bundle, "8.6.0")
    for path in tmp_path.rglob("hyper_synthesis.*.engine"):
        path.write_bytes(b"engine of context_0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    with pytest.raises(PolcError, match="is damaged or replaced .* build it again, with --rebuild"):
        backend.run("hyper_synthesis", entropy_inputs(bundle))
    assert trt.opened == []


def test_an_engine_of_another_graph_is_refused(emulate, bundle, tmp_path):
    emulate()
    fill(tmp_path, bundle, "8.6.0")
    graph = bundle.manifest.graph("hyper_synthesis")
    key = EngineKey(graph.name, graph.sha256, "tensorrt", "fp32", False, ranges(graph), target("8.6.0"))
    store(tmp_path, key, b"engine of context_0", {})
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    with pytest.raises(BundleError, match="other inputs and outputs than the manifest says"):
        backend.run("hyper_synthesis", entropy_inputs(bundle))


def test_an_engine_that_tensorrt_does_not_take_is_one_line(emulate, bundle, tmp_path):
    emulate()
    fill(tmp_path, bundle, "8.6.0")
    graph = bundle.manifest.graph("hyper_synthesis")
    key = EngineKey(graph.name, graph.sha256, "tensorrt", "fp32", False, ranges(graph), target("8.6.0"))
    store(tmp_path, key, b"nonsense", {})
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    with pytest.raises(PolcError, match=r"TensorRT does not take .*hyper_synthesis.*: build it again"):
        backend.run("hyper_synthesis", entropy_inputs(bundle))


def test_a_closed_backend_says_so(emulate, bundle, tmp_path):
    emulate()
    fill(tmp_path, bundle, "8.6.0")
    backend = TensorRtBackend(bundle, BackendOptions(), tmp_path)
    backend.close()
    with pytest.raises(UsageError, match="the backend tensorrt is closed: make another"):
        backend.run("hyper_synthesis", entropy_inputs(bundle))


def test_commands_know_the_backend():
    assert "tensorrt" in backend_names()
