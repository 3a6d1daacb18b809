"""The TensorRT backend: runs engines of a bundle's graphs on a GPU."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle, GraphFile
from ...bundle.manifest import TENSORRT, TENSORRT_PLUGIN
from ...errors import BackendUnavailable, BundleError, UsageError
from ..base import CUDA, BackendBase, BackendOptions, FloatArray
from ..clock import GraphClock
from ..made_once import MadeOnce
from .api import LastError, deserialize, import_tensorrt, make_logger, tensor_names
from .cuda import Cuda
from .engine_cache import Engine, Target, cache_folder, engines_of, preferred, refusal
from .plugin import NO_PLUGIN, PLUGIN_NAME, PluginLibrary, find_plugin
from .streams import LoadedEngine, StreamContext, StreamPool

GRAPHS_VARIABLE = "POLC_CUDA_GRAPHS"
"""Environment variable that turns CUDA graphs off where it is `off`."""

STREAMS = 2
"""Graphs that run at once by default: one computes while another is copied."""


class TensorRtBackend(BackendBase, GraphClock):
    """Runs engines that `polc-export --format tensorrt` has built on this machine.

    Threads may share it: each run takes one of a few streams with memory of their own, or waits for one.

    Args:
        bundle: the bundle.
        options: precision, and whether the plugin may serve (`native_ops`).
        cache: folder of the engines; None for the default one.
        cuda_graphs: whether runs of the entropy path's graphs are captured as CUDA graphs; None for
            `$POLC_CUDA_GRAPHS`, else yes.
        streams: graphs that may run at once; each takes memory of its own for the largest shapes it ran.

    Raises:
        BackendUnavailable: TensorRT, cuda-bindings or a GPU is missing, or an engine of an exact graph.
        UsageError: `streams` is not positive.
    """

    name = "tensorrt"
    device = CUDA
    clock = "CUDA events"

    def __init__(
        self,
        bundle: Bundle,
        options: BackendOptions,
        cache: Path | None = None,
        cuda_graphs: bool | None = None,
        streams: int = STREAMS,
    ) -> None:
        if streams < 1:
            raise UsageError(f"streams must be at least 1, got {streams}")
        BackendBase.__init__(self, options)
        GraphClock.__init__(self)
        self.bundle = bundle
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
        self._loaded: MadeOnce[Path, LoadedEngine] = MadeOnce()
        self._streams = StreamPool(partial(StreamContext, self._trt, self._cuda, self._error), streams)

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        names = self.bundle.manifest.graph(graph, self.options.precision).inputs
        feeds = {name: np.ascontiguousarray(inputs[name], np.float32) for name in names}
        chosen = self.engines.choose(graph, {name: value.shape for name, value in feeds.items()})
        engine = self._loaded.get(chosen.path, partial(self._load, chosen))
        self._cuda.use()
        with self._streams.stream() as stream:
            outputs, seconds = stream.run(engine, feeds, self.timed)
        if self.timed:
            self.add_seconds(graph, seconds)
        return outputs

    def describe(self) -> dict[str, Any]:
        """TensorRT's version, what runs the attention, the GPU, and whether runs are captured."""
        return {
            **super().describe(),
            "version": self._trt.__version__,
            "attention": self.plugin.attention,
            "device": self.device,
            "gpu": self._cuda.device.name,
            "cuda_graphs": self._cuda_graphs,
        }

    def close(self) -> None:
        """Frees every stream and engine."""
        super().close()
        self._streams.close()
        self._loaded.clear()

    def _load(self, engine: Engine) -> LoadedEngine:
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
        """Raises BackendUnavailable unless there is an engine of every exact graph, which both sides need.

        The others are looked for when they first run: a machine that only decodes needs no analysis.
        """
        graphs = self.bundle.manifest.graphs
        for graph in [graph for graph in graphs if graph.exact] or graphs[:1]:
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
