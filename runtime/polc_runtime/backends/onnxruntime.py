"""The ONNX Runtime backend: on the CPU, and what it shares with the one on CUDA devices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from ..bundle import Bundle, GraphFile
from ..errors import BackendUnavailable, BundleError, first_line
from ..processors import default_threads
from .base import BackendBase, BackendOptions, FloatArray
from .made_once import MadeOnce
from .op_library import NO_OPS, OpLibrary, find_op_library

try:
    import onnxruntime as ort
except ModuleNotFoundError as error:
    raise BackendUnavailable("the backend onnxruntime is not installed: pip install onnxruntime") from error
except ImportError as error:
    raise BackendUnavailable(f"onnxruntime cannot be loaded: {first_line(error)}") from error

EXACT_LEVEL = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
"""Optimisation of the graphs that both sides of a stream must agree on: fixed, so that they differ little.

For the same reason these graphs run without the native operators.
"""

STOP_SPINNING = "session.force_spinning_stop"
"""Threads wait busily for the next operator, but asleep for the next run.

Each graph is a session with threads of its own, which would otherwise keep the cores from the graph that runs
after it.
"""

KEPT_PIXELS = 1 << 20
"""A run on larger images than this, all together, gives the memory that it worked in back to the system.

Otherwise a session keeps it for its next run, which spares that a tenth of its time. But each session keeps
its own, so that after one large image a process would hold what all its graphs needed for it.
"""


class OnnxRuntimeBackend(BackendBase):
    """Runs a bundle's ONNX graphs; sessions are made when a graph first runs, and kept.

    The native operators serve the graphs that are not exact; without them ONNX Runtime runs the portable
    bodies that the graphs carry.

    Args:
        bundle: the bundle.
        options: precision and threads.
    """

    name = "onnxruntime"
    provider = "CPUExecutionProvider"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        super().__init__(options)
        self.bundle = bundle
        self.threads = options.threads or default_threads()
        self.op_library = self._find_ops() if options.native_ops else NO_OPS
        self._sessions: MadeOnce[str, ort.InferenceSession] = MadeOnce()

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        session = self._sessions.get(graph, partial(self._make_session, graph))
        outputs = [value.name for value in session.get_outputs()]
        feeds = {value.name: np.ascontiguousarray(inputs[value.name]) for value in session.get_inputs()}
        try:
            values = self._execute(graph, session, feeds, outputs)
        except Exception as error:  # onnxruntime's own classes share no public base
            raise BundleError(
                f"{self.bundle.path}: ONNX Runtime failed in the graph {graph}: {first_line(error)}"
            ) from error
        return dict(zip(outputs, values, strict=True))

    def describe(self) -> dict[str, Any]:
        """Name, version, precision, threads, and what runs the attention."""
        return {
            **super().describe(),
            "version": ort.__version__,
            "threads": self.threads,
            "attention": self.op_library.attention,
        }

    def close(self) -> None:
        """Drops every session."""
        super().close()
        self._sessions.clear()

    def _find_ops(self) -> OpLibrary:
        """The native operators that serve this provider, or why none do."""
        return find_op_library()

    def _execute(
        self, graph: str, session: ort.InferenceSession, feeds: dict[str, FloatArray], outputs: list[str]
    ) -> list[FloatArray]:
        """Runs a graph; its outputs in the order of their names."""
        values: list[FloatArray] = session.run(outputs, feeds, self._run_options(feeds))
        return values

    def _provider_options(self, graph: GraphFile) -> dict[str, str]:
        """How the provider is to run a graph."""
        return {}

    def _session_options(self, graph: GraphFile) -> ort.SessionOptions:
        """How ONNX Runtime is to run a graph."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(STOP_SPINNING, "1")
        options.intra_op_num_threads = self.threads
        if graph.exact:
            options.graph_optimization_level = EXACT_LEVEL
        elif self.op_library.registers:
            options.register_custom_ops_library(str(self.op_library.path))
        return options

    def _run_options(self, feeds: Mapping[str, FloatArray]) -> ort.RunOptions:
        """How to run a graph on these inputs."""
        options = ort.RunOptions()
        if self._pixels(feeds) > KEPT_PIXELS:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return options

    def _pixels(self, feeds: Mapping[str, FloatArray]) -> int:
        """Pixels, all together, of the images that some inputs belong to."""
        plan = self.bundle.manifest.plan
        strides = plan.strides
        planes = {name: value for name, value in feeds.items() if value.ndim == 4}
        return max(
            (
                len(value) * math.prod(value.shape[2:]) * strides.get(name, plan.latent.stride) ** 2
                for name, value in planes.items()
            ),
            default=0,
        )

    def _make_session(self, name: str) -> ort.InferenceSession:
        graph = self.bundle.manifest.graph(name, self.options.precision)
        model = self.bundle.graph(name, self.options.precision)
        try:
            session = ort.InferenceSession(
                model,
                self._session_options(graph),
                providers=[(self.provider, self._provider_options(graph))],
                enable_fallback=False,
            )
        except Exception as error:  # onnxruntime's own classes share no public base
            raise BundleError(
                f"{self.bundle.path}: ONNX Runtime cannot load {graph.file}: {first_line(error)}"
            ) from error
        found = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
        if found != graph.inputs.keys() | graph.outputs.keys():
            raise BundleError(
                f"{self.bundle.path}: {graph.file} has other inputs and outputs than the manifest says"
            )
        return session
