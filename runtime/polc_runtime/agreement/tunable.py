"""ONNX Runtime with settings of the exact graphs that files are never coded with, to measure their effect."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from ..backends import BackendOptions
from ..backends.onnxruntime import OnnxRuntimeBackend
from ..bundle import Bundle, GraphFile

_LEVELS = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


class TunableOnnxRuntime(OnnxRuntimeBackend):
    """Runs the exact graphs at any optimisation level, and with the native operators on demand.

    Args:
        bundle: the bundle.
        options: precision and threads.
        optimisation: off, basic, extended or all.
        native: whether the exact graphs take the native operators.
    """

    def __init__(self, bundle: Bundle, options: BackendOptions, optimisation: str, native: bool) -> None:
        super().__init__(bundle, options)
        self.optimisation = optimisation
        self.native = native

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return {**super().describe(), "optimisation": self.optimisation, "exact_native": self.native}

    def _session_options(self, graph: GraphFile) -> ort.SessionOptions:
        options = super()._session_options(graph)
        if graph.exact:
            options.graph_optimization_level = _LEVELS[self.optimisation]
            if self.native and self.op_library.registers:
                options.register_custom_ops_library(str(self.op_library.path))
        return options
