"""Building engines: the order of calls, the cache, the log and every refusal, on an emulated TensorRT.

No GPU is here: what stands in for TensorRT notes how it is called and gives what each test wants it to give.
"""

import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from polc_export.tensorrt import EngineOptions, build_engines, engine_options
from polc_export.tensorrt.build import build_or_notice, timing_path, wanted_graphs
from polc_export.tensorrt.shapes import Batch, Shapes, Size
from polc_runtime import Bundle, BundleError, ExportError, UsageError
from polc_runtime.backends.tensorrt.cuda import RUNTIMES
from polc_runtime.backends.tensorrt.engine_cache import Target, engines_of
from polc_runtime.bundle import StoredFile

CONSTRAINTS = {"OBEY_PRECISION_CONSTRAINTS": "obey", "PREFER_PRECISION_CONSTRAINTS": "prefer"}
CODE = SimpleNamespace(cudaSuccess=0)
HALF_LAYER = {"Name": "m", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Half"}], "Outputs": []}
FLOAT_LAYER = {"Name": "m", "LayerType": "gemm", "Inputs": [{"Format/Datatype": "Float"}], "Outputs": []}


class Builder:
    """Stands in for the module tensorrt, and notes what was asked of it.

    Args:
        version: of TensorRT.
        layers: what the inspector tells of every engine.
        unread: graphs whose file the parser refuses.
        unbuilt: how many of the first builds fail.
    """

    float32, float16, int32 = (SimpleNamespace(name=name) for name in ("FLOAT", "HALF", "INT32"))
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed", NONE="none")
    BuilderFlag = SimpleNamespace(TF32="tf32", FP16="fp16", **CONSTRAINTS)
    TacticSource = SimpleNamespace(EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4)
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    PreviewFeature = SimpleNamespace(PROFILE_SHARING_0806="sharing")
    LayerInformationFormat = SimpleNamespace(JSON="json")
    ILogger = type("ILogger", (), {"__init__": lambda self: None})

    def __init__(self, version="8.6.0", layers=(FLOAT_LAYER,), unread=(), unbuilt=0):
        self.__version__ = version
        self.unbuilt = unbuilt
        self.attempts = 0
        self.layers = layers
        self.unread = unread
        self.configs = []
        self.networks = []
        newer = int(version.split(".")[0]) >= 10
        flag = {"STRONGLY_TYPED": 1} if newer else {"EXPLICIT_BATCH": 0}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flag)

    def Builder(self, logger):
        self.logger = logger
        return SimpleNamespace(
            create_network=self._network,
            create_builder_config=self._config,
            create_optimization_profile=_Profile,
            build_serialized_network=self._plan,
        )

    def OnnxParser(self, network, logger):
        def parse(model):
            self.logger.log(SimpleNamespace(name="VERBOSE"), "a detail")
            self.logger.log(SimpleNamespace(name="WARNING"), "a warning")
            network.model = model
            return not any(name.encode() in model for name in self.unread)

        error = SimpleNamespace(desc=lambda: "In node 3:\n unsupported  Loop")
        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda index: error)

    def Runtime(self, logger):
        context = SimpleNamespace(set_input_shape=lambda name, shape: True)
        told = json.dumps({"Layers": list(self.layers)})
        inspector = SimpleNamespace(get_engine_information=lambda kind: told)
        engine = SimpleNamespace(
            create_engine_inspector=lambda: inspector,
            create_execution_context_without_device_memory=lambda: context,
            device_memory_size=0,
        )
        return SimpleNamespace(deserialize_cuda_engine=lambda data: engine)

    def get_plugin_registry(self):
        return SimpleNamespace(load_library=lambda path: None, plugin_creator_list=[])

    def _network(self, flags):
        layers = [_Layer(self, "mul"), _Layer(self, "softmax", "SOFTMAX"), _Layer(self, "shape", "SHAPE")]
        network = SimpleNamespace(flags=flags, num_layers=3, get_layer=layers.__getitem__, layers=layers)
        self.networks.append(network)
        return network

    def _config(self):
        config = _Config()
        self.configs.append(config)
        return config

    def _plan(self, network, config):
        self.attempts += 1
        return None if self.attempts <= self.unbuilt else b"engine of " + network.model


class _Profile(dict):
    def set_shape(self, name, *shapes):
        self[name] = shapes


class _Layer:
    def __init__(self, trt, name, kind="ELEMENTWISE"):
        dtype = trt.int32 if kind == "SHAPE" else trt.float16
        tensor = SimpleNamespace(dtype=dtype, is_shape_tensor=False)
        self.name, self.type = name, SimpleNamespace(name=kind)
        self.num_inputs = self.num_outputs = 1
        self.get_input = self.get_output = lambda index: tensor
        self.precision = None
        self.output = "own"

    def set_output_type(self, index, dtype):
        self.output = dtype

    def reset_precision(self):
        self.precision = None

    def reset_output_type(self, index):
        self.output = "own"


class _Config:
    def __init__(self):
        self.flags = {"tf32"}
        self.timing = self.limit = None
        self.previews = {}

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_preview_feature(self, feature, on):
        self.previews[feature] = on

    def set_tactic_sources(self, sources):
        self.sources = sources

    def set_memory_pool_limit(self, pool, size):
        self.limit = (pool, size)

    def add_optimization_profile(self, profile):
        self.profile = profile
        return 0

    def create_timing_cache(self, data):
        return None if data == b"damaged" else SimpleNamespace(serialize=lambda: data + b"+")

    def set_timing_cache(self, cache, ignore):
        self.timing = cache
        return True

    def get_timing_cache(self):
        return self.timing


def _device():
    properties = SimpleNamespace(name=b"GPU One", major=8, minor=6)
    return SimpleNamespace(
        cudaError_t=CODE,
        cudaGetDeviceCount=lambda: (0, 1),
        cudaGetDeviceProperties=lambda index: (0, properties),
    )


@pytest.fixture
def start(monkeypatch):
    def put(**settings):
        trt = Builder(**settings)
        monkeypatch.setitem(sys.modules, RUNTIMES[0], _device())
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return trt

    return put


@pytest.fixture
def bundle(tmp_path):
    """Two graphs, one of them exact, with files of TensorRT in which each graph's name stands."""
    import hashlib

    base = Bundle.load("nano")
    folder = tmp_path / "b"
    (folder / "graphs").mkdir(parents=True)
    graphs = []
    for name, precision in (("analysis", "fp32"), ("analysis", "fp16"), ("context_0", "fp32")):
        file = f"graphs/{name}.{precision}.trt.onnx"
        (folder / file).write_bytes(f"{name} in {precision}".encode())
        sha256 = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        stored = {"tensorrt": StoredFile(file, sha256)}
        graphs.append(dataclasses.replace(base.manifest.graph(name), precision=precision, formats=stored))
    return Bundle(folder, dataclasses.replace(base.manifest, graphs=tuple(graphs), tasks=()))


@pytest.fixture
def options(tmp_path):
    return EngineOptions(Shapes(batch=Batch(1, 1, 2)), cache=tmp_path / "cache")


def test_fp32_engines_have_neither_fp16_nor_tf32(start, bundle, options):
    trt = start()
    lines = []
    made = build_engines(bundle, options, lines.append)
    assert [one.engine.key.graph for one in made] == ["analysis", "context_0"]
    assert all(config.flags == set() and config.profiling_verbosity == "detailed" for config in trt.configs)
    assert all(config.sources == 0b11000 for config in trt.configs)
    assert all(config.previews == {"sharing": True} for config in trt.configs)
    assert trt.configs[0].profile["image"] == ((1, 3, 192, 192), (1, 3, 512, 768), (2, 3, 1920, 1920))
    assert trt.configs[1].profile["params"][2] == (1, 320, 120, 120)
    assert trt.networks[0].flags == 1 << 0
    assert "GPU One (compute capability 8.6) with TensorRT 8.6.0" in lines[0]
    assert lines[1].startswith("ok   analysis (fp32): ") and "1 fp32" in lines[1]


def test_before_tensorrt_10_fp16_is_a_flag_and_kept_layers_are_pinned(start, bundle, options):
    trt = start(layers=[HALF_LAYER])
    bundle = without_exact(bundle)
    build_engines(bundle, dataclasses.replace(options, precision="fp16"))
    assert trt.configs[0].flags == {"fp16", "obey"}
    pinned = {layer.name: layer.precision for layer in trt.networks[0].layers}
    assert pinned == {"mul": None, "softmax": trt.float32, "shape": None}


def test_from_tensorrt_10_on_networks_are_strongly_typed(start, bundle, options):
    trt = start(version="10.3.0", layers=[HALF_LAYER])
    trt.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    engine = trt.Runtime(None).deserialize_cuda_engine(b"")
    engine.create_execution_context = lambda s: engine.create_execution_context_without_device_memory()
    trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    build_engines(without_exact(bundle), dataclasses.replace(options, precision="fp16"))
    assert trt.networks[0].flags == 1 << 1
    assert trt.configs[0].flags == set() and trt.configs[0].previews == {}
    assert all(layer.precision is None for layer in trt.networks[0].layers)


def without_exact(bundle):
    graphs = tuple(graph for graph in bundle.manifest.graphs if not graph.exact)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graphs=graphs))


def test_an_fp16_engine_that_is_fp32_fails_and_is_not_kept(start, bundle, options):
    start(layers=[FLOAT_LAYER])
    lines = []
    with pytest.raises(ExportError, match=r"analysis \(fp16\) is not what was asked for: .*only 0 of 1"):
        build_engines(without_exact(bundle), dataclasses.replace(options, precision="fp16"), lines.append)
    assert lines[-1].startswith("FAIL analysis (fp16): ")
    assert list(options.cache.rglob("*.engine")) == [] and list(options.cache.rglob("*.json")) == []


@pytest.mark.parametrize(
    ("unbuilt", "flags", "pinned", "told"),
    [
        (1, {"fp16", "prefer"}, True, "where TensorRT has kernels for that"),
        (2, {"fp16", "prefer"}, False, "by TensorRT's own choice alone"),
    ],
)
def test_before_tensorrt_10_a_build_that_fails_is_tried_again_with_weaker_pins(
    start, bundle, options, unbuilt, flags, pinned, told
):
    trt = start(layers=[HALF_LAYER], unbuilt=unbuilt)
    lines = []
    made = build_engines(without_exact(bundle), dataclasses.replace(options, precision="fp16"), lines.append)
    assert trt.configs[0].flags == flags
    assert (trt.networks[0].layers[1].precision is trt.float32) == pinned
    assert lines[-1].startswith("notice: TensorRT 8.6.0 does not build analysis (fp16) with layers pinned")
    assert told in lines[-1]
    facts = json.loads(made[0].engine.path.with_suffix(".json").read_text())
    assert facts["layers"]["pins"] == ("preferred" if pinned else "dropped")


def test_an_engine_that_cannot_be_built_at_all_says_so(start, bundle, options):
    trt = start(layers=[HALF_LAYER], unbuilt=3)
    with pytest.raises(ExportError, match=r"TensorRT 8.6.0 cannot build analysis \(fp16\); the log is"):
        build_engines(without_exact(bundle), dataclasses.replace(options, precision="fp16"))
    assert trt.attempts == 3
    with pytest.raises(ExportError, match=r"cannot build analysis \(fp32\)"):
        start(unbuilt=1)
        build_engines(without_exact(bundle), options)


def test_an_engine_that_cannot_be_built_stops_no_other(start, bundle, options):
    start(unread=["analysis"])
    lines = []
    with pytest.raises(ExportError, match="does not read the ONNX file of analysis"):
        build_engines(bundle, options, lines.append)
    assert [line[:13] for line in lines[1:]] == ["FAIL analysis", "ok   context_"]
    assert len(list(options.cache.rglob("*.engine"))) == 1
    start(unread=["analysis", "context_0"])
    with pytest.raises(ExportError, match="2 of 2 engines are missing; the first: TensorRT 8.6.0 does not"):
        build_engines(bundle, dataclasses.replace(options, rebuild=True))


def test_an_exact_engine_with_a_layer_in_half_fails(start, bundle, options):
    start(layers=[HALF_LAYER])
    with pytest.raises(ExportError, match="1 layers run below fp32"):
        build_engines(bundle, options)


def test_tf32_is_allowed_where_asked_for_but_never_in_the_entropy_path(start, bundle, options):
    trt = start()
    made = build_engines(bundle, dataclasses.replace(options, tf32=True))
    assert [config.flags for config in trt.configs] == [{"tf32"}, set()]
    assert [one.engine.key.tf32 for one in made] == [True, False]


def test_engines_in_the_cache_are_not_built_again_unless_asked_for(start, bundle, options):
    trt = start()
    first = build_engines(bundle, options)
    again = build_engines(bundle, options)
    assert [one.built for one in first] == [True, True] and [one.built for one in again] == [False, False]
    assert [one.engine for one in again] == [one.engine for one in first] and len(trt.configs) == 2
    build_engines(bundle, dataclasses.replace(options, rebuild=True))
    assert len(trt.configs) == 4
    other = dataclasses.replace(options, shapes=Shapes(max=Size(1088, 1920)))
    assert all(one.built for one in build_engines(bundle, other))


def test_another_version_of_tensorrt_builds_its_own(start, bundle, options):
    start()
    build_engines(bundle, options)
    start(version="8.6.1")
    assert all(one.built for one in build_engines(bundle, options))
    sha256 = bundle.manifest.graph("analysis").formats["tensorrt"].sha256
    versions = sorted(engine.key.target.tensorrt for engine in engines_of(options.cache, sha256))
    assert versions == ["8.6.0", "8.6.1"]


def test_the_sidecar_says_what_was_read_back(start, bundle, options):
    start()
    engine = build_engines(bundle, options)[0].engine
    facts = json.loads(engine.path.with_suffix(".json").read_text())
    assert facts["gpu"] == "GPU One" and facts["tensorrt"] == "8.6.0" and facts["precision"] == "fp32"
    assert facts["layers"] == {"all": {"fp32": 1}, "matrix": {"fp32": 1}}
    assert facts["shapes"]["image"]["max"] == [2, 3, 1920, 1920]


def test_the_log_keeps_what_tensorrt_says_but_for_details(start, bundle, options):
    start()
    engine = build_engines(bundle, options)[0].engine
    log = engine.path.with_suffix(".log").read_text()
    assert log.startswith(
        "WARNING  a warning\nINFO     the engine as its inspector describes it: {"
    ) and log.endswith("}\n")


def test_the_timing_cache_is_kept_and_given_to_the_next_build(start, bundle, options):
    start()
    build_engines(bundle, options)
    path = timing_path(options.cache, Target("GPU One", "8.6", "8.6.0"))
    assert path.name == "GPU-One-8.6-8.6.0.cache" and path.read_bytes() == b"++"
    path.write_bytes(b"damaged")
    build_engines(bundle, dataclasses.replace(options, rebuild=True))
    assert path.read_bytes() == b"++"


def test_a_file_that_the_parser_refuses_is_one_line_with_its_reason_and_the_log(start, bundle, options):
    start(unread=["context_0"])
    with pytest.raises(ExportError) as caught:
        build_engines(bundle, options)
    message = str(caught.value)
    assert (
        "TensorRT 8.6.0 does not read the ONNX file of context_0 (fp32): In node 3: unsupported Loop"
        in message
    )
    assert "\n" not in message and message.endswith(".log")


def test_a_workspace_is_set_in_bytes(start, bundle, options):
    trt = start()
    build_engines(bundle, dataclasses.replace(options, workspace=64))
    assert trt.configs[0].limit == ("workspace", 64 << 20)


def test_a_precision_that_the_bundle_lacks_is_named(bundle):
    graphs = tuple(g for g in bundle.manifest.graphs if g.precision == "fp32")
    only = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, graphs=graphs))
    with pytest.raises(BundleError, match="analysis is there in fp32, not in fp16; export it in fp16"):
        wanted_graphs(only, "fp16")


def test_a_bundle_without_files_for_tensorrt_says_so(start, options):
    start()
    with pytest.raises(ExportError, match=r"no TensorRT file of analysis \(fp32\): run polc-export --format"):
        build_engines(Bundle.load("nano"), options)


def test_the_plugin_that_was_asked_for_and_is_not_there_is_named(start, bundle, options, monkeypatch):
    monkeypatch.setenv("POLC_TRT_PLUGIN", "none")
    start()
    with pytest.raises(UsageError, match="--plugin needs the library of NeighborhoodAttention2D: POLC"):
        build_engines(bundle, dataclasses.replace(options, plugin=True))


def test_where_something_is_missing_one_line_says_what_and_where_to_run_it(bundle, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    lines = []
    assert build_or_notice(bundle, options, lines.append) == []
    (line,) = lines
    assert line.startswith(
        "notice: no engines were built: the package tensorrt is not installed: pip install"
    )
    assert line.endswith(f"polc-export --bundle {bundle.path} --format tensorrt --precision fp32")


def parsed(*arguments):
    import click

    found = []

    @click.command()
    @engine_options
    def command(engines):
        found.append(engines)

    done = CliRunner().invoke(command, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return found[0] if found else done.output


def test_options_of_the_command_line(tmp_path):
    assert parsed() == EngineOptions()
    found = parsed(
        *("--min-shape", "256x256", "--opt-shape", "512x512", "--max-shape", "1088x1920", "--batch", "1:2:4"),
        *("--inlined", "--tf32", "--workspace", "4096", "--cache", str(tmp_path), "--rebuild"),
    )
    shapes = Shapes(Size(256, 256), Size(512, 512), Size(1088, 1920), Batch(1, 2, 4))
    assert found == EngineOptions(shapes, "fp32", False, True, 4096, tmp_path, True)
    assert parsed("--plugin").plugin is True and parsed().plugin is None


def test_wrong_options_are_one_line():
    with pytest.raises(UsageError, match="--min-shape 100: expected HEIGHTxWIDTH"):
        parsed("--min-shape", "100")
    with pytest.raises(UsageError, match="the shapes do not ascend"):
        parsed("--max-shape", "192x192")
