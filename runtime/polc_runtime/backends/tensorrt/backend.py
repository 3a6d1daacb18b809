"""The TensorRT backend: runs engines of a bundle's graphs on a GPU."""

from __future__ import annotations

import os
import shlex
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle, GraphFile
from ...bundle.manifest import TENSORRT, TENSORRT_PLUGIN
from ...errors import BackendUnavailable, BundleError
from ..base import CUDA, BackendOptions, FloatArray
from ..clock import GraphSeconds
from .api import LastError, deserialize, import_tensorrt, make_logger, tensor_names
from .cuda import Cuda, CudaError
from .engine_cache import Engine, Target, cache_folder, engines_of, preferred, refusal
from .lane import Lane, LoadedEngine
from .plugin import NO_PLUGIN, PLUGIN_NAME, PluginLibrary, find_plugin

GRAPHS_VARIABLE = "POLC_CUDA_GRAPHS"
"""Environment variable that turns CUDA graphs off where it is `off`."""


class TensorRtBackend:
    """Runs engines that `polc-export --format tensorrt` has built on this machine.

    Threads may share it: each has a lane, a stream with memory of its own, that another thread takes over
    once it has ended.

    Args:
        bundle: the bundle.
        options: precision, and whether the plugin may serve (`native_ops`).
        cache: folder of the engines; None for the default one.
        cuda_graphs: whether runs of the entropy path's graphs are captured as CUDA graphs; None for
            `$POLC_CUDA_GRAPHS`, else yes.

    Raises:
        BackendUnavailable: TensorRT, cuda-bindings or a GPU is missing, or an engine that coding needs.
    """

    name = "tensorrt"
    clock = "CUDA events"

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions,
        cache: Path | None = None,
        cuda_graphs: bool | None = None,
    ) -> None:
        self.bundle = bundle
        self.options = options
        self._trt = import_tensorrt()
        self._cuda = Cuda.open()
        device = self._cuda.device
        target = Target(device.name, device.compute_capability, self._trt.__version__)
        self._cuda_graphs = os.environ.get(GRAPHS_VARIABLE) != "off" if cuda_graphs is None else cuda_graphs
        self.plugin = find_plugin(self._trt) if options.native_ops else NO_PLUGIN
        self.engines = EngineChoice(bundle, options.precision, cache_folder(cache), target, self.plugin)
        self.engines.check()
        self._error = LastError()
        self._logger = make_logger(self._trt, self._error)
        self._runtime = self._trt.Runtime(self._logger)
        self._loaded: dict[Path, LoadedEngine] = {}
        self._loading = threading.Lock()
        self._lanes = _Lanes(self._trt, self._cuda, self._error)
        self._seconds = GraphSeconds()

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        names = self.bundle.manifest.graph(graph, self.options.precision).inputs
        feeds = {name: np.ascontiguousarray(inputs[name], np.float32) for name in names}
        engine = self._load(self.engines.choose(graph, {name: value.shape for name, value in feeds.items()}))
        self._cuda.use()
        with self._lanes.one() as lane:
            outputs, seconds = lane.run(engine, feeds, self._seconds.wanted)
        if self._seconds.wanted:
            self._seconds.add(graph, seconds)
        return outputs

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return {
            "name": self.name,
            "version": self._trt.__version__,
            "precision": self.options.precision,
            "threads": self.options.threads,
            "attention": self.plugin.attention,
            "device": CUDA,
            "gpu": self._cuda.device.name,
            "cuda_graphs": self._cuda_graphs,
        }

    def time_graphs(self) -> None:
        """See `DeviceTimed.time_graphs`."""
        self._seconds.wanted = True

    def graph_seconds(self) -> dict[str, float]:
        """See `DeviceTimed.graph_seconds`."""
        return self._seconds.take()

    def close(self) -> None:
        """Frees every lane and engine."""
        self._lanes.close()
        with self._loading:
            self._loaded.clear()

    def _load(self, engine: Engine) -> LoadedEngine:
        with self._loading:
            if engine.path not in self._loaded:
                self._loaded[engine.path] = self._open(engine)
            return self._loaded[engine.path]

    def _open(self, engine: Engine) -> LoadedEngine:
        self._cuda.use()
        opened = deserialize(self._runtime, engine.read(), str(engine.path), self._error)
        inputs, outputs = tensor_names(self._trt, opened)
        graph = self.bundle.manifest.graph(engine.key.graph, self.options.precision)
        if set(inputs) != graph.inputs.keys() or set(outputs) != graph.outputs.keys():
            raise BundleError(
                f"{engine.path} has other inputs and outputs than the manifest says: build it again"
            )
        kept = [name for name in outputs if graph.exact and name in self._shared()]
        return LoadedEngine(engine.key, opened, inputs, outputs, graph.exact and self._cuda_graphs, kept)

    def _shared(self) -> set[str]:
        """Tensors that one exact graph gives and another takes: the parameters and the channel context."""
        exact = [graph for graph in self.bundle.manifest.graphs if graph.exact]
        return {name for g in exact for name in g.outputs} & {name for g in exact for name in g.inputs}


class EngineChoice:
    """Which engines of a bundle run here, and which of them takes an input.

    Args:
        bundle: the bundle.
        precision: of the graphs that may be either.
        cache: folder of the engines.
        target: what they must be built for.
        plugin: the library of the plugin, or why there is none.
    """

    def __init__(
        self, bundle: Bundle, precision: str, cache: Path, target: Target, plugin: PluginLibrary
    ) -> None:
        self.bundle = bundle
        self.precision = precision
        self.cache = cache
        self.target = target
        self.plugin = plugin
        self._found: dict[str, list[Engine]] = {}

    def check(self) -> None:
        """Raises BackendUnavailable unless there is an engine of every graph that coding takes."""
        for graph in self.bundle.manifest.graphs:
            if graph.exact or (graph.name in ("analysis", "synthesis") and graph.precision == self.precision):
                self.of(graph.name)

    def of(self, name: str) -> list[Engine]:
        """Engines of a graph that run here, in the order to try them in.

        Raises:
            BackendUnavailable: there is none; the message says what there is, and how to build one.
        """
        if name not in self._found:
            graph = self.bundle.manifest.graph(name, self.precision)
            stored = [
                graph.formats[variant] for variant in (TENSORRT_PLUGIN, TENSORRT) if variant in graph.formats
            ]
            there = [engine for file in stored for engine in engines_of(self.cache, file.sha256)]
            fitting = [engine for engine in there if engine.key.target == self.target]
            found = preferred(fitting, self.plugin.path is not None)
            if not found:
                raise BackendUnavailable(self._missing(graph, there, fitting))
            self._found[name] = found
        return self._found[name]

    def choose(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Engine:
        """The engine of a graph that takes inputs of these shapes.

        Raises:
            BackendUnavailable: none does; the message says which shapes they take.
        """
        engines = self.of(name)
        for engine in engines:
            if engine.key.admits(shapes):
                return engine
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        ranges = "; or ".join(
            ", ".join(f"{n} {r}" for n, r in engine.key.ranges.items()) for engine in engines
        )
        raise BackendUnavailable(
            f"no engine of {name} takes {given}: those there are take {ranges}; build one with other "
            f"--min-shape, --max-shape or --batch: {self._command()}"
        )

    def _missing(self, graph: GraphFile, there: list[Engine], fitting: list[Engine]) -> str:
        what = f"{graph.name} ({graph.precision})"
        if fitting:
            return (
                f"the engine of {what} needs the plugin {PLUGIN_NAME}, which is not here: "
                f"{self.plugin.reason}; bring its library, or build engines that do without: "
                f"{self._command()} --inlined"
            )
        if there:
            return (
                f"no engine of {what} runs here: {refusal(there, self.target)}; build it: {self._command()}"
            )
        if not graph.formats.keys() & {TENSORRT_PLUGIN, TENSORRT}:
            return (
                f"the bundle {self.bundle.path} has no TensorRT files of {what}; write them where the "
                f"exporter is installed: {self._command()}"
            )
        return f"there is no engine of {what} in {self.cache}; build it on this machine: {self._command()}"

    def _command(self) -> str:
        path = shlex.quote(str(self.bundle.path))
        return f"polc-export --bundle {path} --format tensorrt --precision {self.precision}"


class _Lanes:
    """Lanes that no thread is using, and how many there are."""

    def __init__(self, trt: Any, cuda: Cuda, error: LastError) -> None:
        self._make = lambda: Lane(trt, cuda, error)
        self._free: list[Lane] = []
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Lane]:
        """This thread's lane: the one it had before, else one of a thread that has ended, else a new one."""
        thread = threading.current_thread()
        with self._lock:
            if self._closed:
                raise BackendUnavailable("the backend tensorrt is closed")
            mine = (lane for lane in self._free if lane.belongs_to(thread))
            lane = next(mine, None) or next((lane for lane in self._free if lane.is_orphaned()), None)
            if lane is not None:
                self._free.remove(lane)
        if lane is None:
            lane = self._make()
        lane.owner = weakref.ref(thread)
        try:
            yield lane
        except BaseException:
            with suppress(CudaError):  # what went wrong first is what the user is to see
                lane.free()
            raise
        with self._lock:
            if not self._closed:
                self._free.append(lane)
                return
        lane.free()

    def close(self) -> None:
        """Frees the lanes, those in use when they are given back."""
        with self._lock:
            self._closed = True
            lanes, self._free = self._free, []
        for lane in lanes:
            lane.free()
