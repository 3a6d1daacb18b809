"""`build_engines`: the engines of a bundle, for the GPU of this machine."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from polc_runtime.backends.tensorrt.api import LastError, import_tensorrt, make_logger
from polc_runtime.backends.tensorrt.cuda import Cuda
from polc_runtime.backends.tensorrt.engine_cache import (
    LOG,
    Engine,
    EngineKey,
    Target,
    cache_folder,
    engine_path,
    engines_of,
    store,
)
from polc_runtime.backends.tensorrt.plugin import NO_PLUGIN, PLUGIN_NAME, PluginLibrary, find_plugin
from polc_runtime.bundle import Bundle, GraphFile
from polc_runtime.bundle.manifest import TENSORRT, TENSORRT_PLUGIN
from polc_runtime.errors import BackendUnavailable, ExportError, UsageError
from polc_runtime.files.outputs import make_folder, write_file

from .network import DROPPED, OBEYED, PREFERRED, Job, Plan, build
from .options import EngineOptions
from .precision import HALF
from .profiles import ranges_of, shapes_for

Report = Callable[[str], None]

_LESS_THAN_OBEYED = {
    PREFERRED: "where TensorRT has kernels for that",
    DROPPED: "by TensorRT's own choice alone",
}
"""How layers are in fp32 that could not be pinned to it."""

TIMING = "timing"
"""Folder of the timing caches, inside the cache of engines."""


@dataclass(frozen=True)
class BuiltEngine:
    """An engine that is in the cache now.

    Attributes:
        engine: the engine.
        built: whether it was built just now, and not found there.
        seconds: what that took.
    """

    engine: Engine
    built: bool
    seconds: float = 0.0


def build_engines(
    bundle: Bundle, options: EngineOptions | None = None, report: Report = lambda line: None
) -> list[BuiltEngine]:
    """Builds engines of every graph of a bundle, for this machine's GPU and TensorRT, from its files alone.

    Engines that are in the cache already are left as they are. One that cannot be built stops no other.

    Args:
        bundle: with TensorRT's ONNX files.
        options: how to build.
        report: called with a line for each engine.

    Raises:
        BackendUnavailable: TensorRT, cuda-bindings or a GPU is missing.
        UsageError: the plugin was asked for and is not here, or images are not padded to the shapes.
        BundleError: a graph is not there in that precision, or a file is damaged.
        ExportError: an engine cannot be built, or is not of the precision asked for; it is not kept, but the
            others are.
    """
    options = options or EngineOptions()
    options.shapes.check(bundle.manifest.plan.pad)
    trt = import_tensorrt()
    cuda = Cuda.open()
    target = Target(cuda.device.name, cuda.device.compute_capability, trt.__version__)
    plugin = _plugin(trt, options)
    report(f"{target}, attention: {plugin.attention}")
    builder = _EngineBuilder(trt, target, cache_folder(options.cache), options, report)
    graphs = wanted_graphs(bundle, options.precision)
    built, failures = [], []
    for graph in graphs:
        try:
            built.append(builder.make(bundle, graph, plugin))
        except ExportError as error:
            report(f"FAIL {graph.name} ({graph.precision}): {error}")
            failures.append(error)
    if len(failures) > 1:
        raise ExportError(f"{len(failures)} of {len(graphs)} engines are missing; the first: {failures[0]}")
    if failures:
        raise failures[0]
    return built


def build_or_notice(
    bundle: Bundle, options: EngineOptions, report: Report = lambda line: None
) -> list[BuiltEngine]:
    """As `build_engines`; where TensorRT or a GPU is missing, one line that says so and what to run where."""
    try:
        return build_engines(bundle, options, report)
    except BackendUnavailable as error:
        path = shlex.quote(str(bundle.path))
        report(
            f"notice: no engines were built: {error}; to build them, run on the machine with the GPU: "
            f"polc-export --bundle {path} --format tensorrt --precision {options.precision}"
        )
        return []


def wanted_graphs(bundle: Bundle, precision: str) -> list[GraphFile]:
    """Each graph of a bundle in the precision that it is to be built in.

    Raises:
        BundleError: a graph is not there in that precision.
    """
    names = dict.fromkeys(graph.name for graph in bundle.manifest.graphs)
    return [bundle.manifest.graph(name, precision) for name in names]


def variant_of(graph: GraphFile, plugin: bool) -> str:
    """Which of a graph's ONNX files an engine is built from.

    The entropy path is built without the plugin: encoder and decoder must agree there, whether they have it
    or not.

    Raises:
        ExportError: the bundle has no file that serves.
    """
    order = [TENSORRT_PLUGIN, TENSORRT] if plugin and not graph.exact else [TENSORRT]
    for variant in order:
        if variant in graph.formats:
            return variant
    raise ExportError(
        f"the bundle has no TensorRT file of {graph.name} ({graph.precision}): run polc-export --format "
        "tensorrt where onnx is installed"
    )


def _plugin(trt: Any, options: EngineOptions) -> PluginLibrary:
    if options.plugin is False:
        return NO_PLUGIN
    found = find_plugin(trt)
    if options.plugin and found.path is None:
        raise UsageError(f"--plugin needs the library of {PLUGIN_NAME}: {found.reason}")
    return found


class _EngineBuilder:
    """Builds engines for one GPU, one after the other, with one timing cache."""

    def __init__(self, trt: Any, target: Target, cache: Path, options: EngineOptions, report: Report) -> None:
        self.trt = trt
        self.target = target
        self.cache = cache
        self.options = options
        self.report = report

    def make(self, bundle: Bundle, graph: GraphFile, plugin: PluginLibrary) -> BuiltEngine:
        """The engine of a graph, from the cache if it is there."""
        variant = variant_of(graph, plugin.path is not None)
        stored = graph.formats[variant]
        key = EngineKey(
            graph=graph.name,
            graph_sha256=stored.sha256,
            variant=variant,
            precision=graph.precision,
            tf32=self.options.tf32 and not graph.exact,
            ranges=ranges_of(
                graph, shapes_for(bundle.manifest, graph, self.options.shapes), bundle.manifest.plan
            ),
            target=self.target,
        )
        label = f"{graph.name} ({graph.precision})"
        there = [engine for engine in engines_of(self.cache, stored.sha256) if engine.key == key]
        if there and not self.options.rebuild:
            self.report(f"ok   {label}: in the cache already, {there[0].path}")
            return BuiltEngine(there[0], built=False)
        started = time.perf_counter()
        engine = self._build(key, graph, bundle.read(stored.file, stored.sha256), label)
        return BuiltEngine(engine, True, time.perf_counter() - started)

    def _build(self, key: EngineKey, graph: GraphFile, model: bytes, label: str) -> Engine:
        path = engine_path(self.cache, key)
        make_folder(path.parent)
        job = Job(label, model, key.precision, graph.exact, key.tf32, self.options.workspace, key.ranges)
        timing = timing_path(self.cache, self.target)
        log = path.with_suffix(LOG)
        with build_log(log) as error:
            known = timing.read_bytes() if timing.is_file() else b""
            try:
                plan = build(self.trt, job, known, make_logger(self.trt, error), error)
            except ExportError as failure:
                raise ExportError(f"{failure}; the log is {log}") from None
        make_folder(timing.parent)
        write_file(timing, plan.timing, force=True)
        self._check(plan, key, label, log)
        pins = {} if plan.pins == OBEYED else {"pins": plan.pins}
        return store(self.cache, key, plan.data, {**plan.verdict.to_dict(), **pins})

    def _check(self, plan: Plan, key: EngineKey, label: str, log: Path) -> None:
        verdict = plan.verdict
        if verdict.problems:
            raise ExportError(
                f"the engine of {label} is not what was asked for: {'; '.join(verdict.problems)}; log: {log}"
            )
        self.report(f"ok   {label}: {len(plan.data) / 1e6:.1f} MB, {verdict.summary()}")
        if plan.pins in _LESS_THAN_OBEYED:
            self.report(
                f"notice: TensorRT {self.target.tensorrt} does not build {label} with layers pinned to fp32; "
                f"they are in fp32 {_LESS_THAN_OBEYED[plan.pins]}: check it by its accuracy"
            )
        if verdict.is_unread and key.precision == HALF:
            self.report(
                f"notice: TensorRT reports the precision of no matrix product of {label}: check it by its "
                "accuracy"
            )


def timing_path(cache: Path, target: Target) -> Path:
    """The timing cache of a target."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{target.gpu} {target.compute_capability} {target.tensorrt}")
    return cache / TIMING / f"{name}.cache"


@contextlib.contextmanager
def build_log(path: Path) -> Iterator[LastError]:
    """Writes what TensorRT says of a build to a file, but for the details of single tactics.

    Each line is there at once: a build may end the process.
    """
    with path.open("w", encoding="utf-8", buffering=1) as file:
        yield _Log(file)


class _Log(LastError):
    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self.file = file

    def __call__(self, severity: str, message: str) -> None:
        super().__call__(severity, message)
        if severity != "VERBOSE" and not self.file.closed:
            self.file.write(f"{severity:8} {message}\n")
