"""The ONNX Runtime backend on CUDA devices."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import onnxruntime as ort

from ..bundle import Bundle, GraphFile
from ..errors import BackendUnavailable
from .base import CUDA, INSTALL_ORT_CUDA, BackendOptions, FloatArray
from .clock import GraphClock
from .onnxruntime import OnnxRuntimeBackend
from .op_library import OpLibrary, find_cuda_ops

_LIBRARIES = (
    "install NVIDIA's driver, and CUDA and cuDNN of the version that this ONNX Runtime was built for "
    "(pip install 'onnxruntime-gpu[cuda,cudnn]')"
)

_SETTINGS = {
    "use_tf32": "0",
    "do_copy_in_default_stream": "1",
    "arena_extend_strategy": "kSameAsRequested",
}
"""Of every graph: fp32 means fp32, and one graph's memory is not doubled for the next."""

_ALGORITHMS = {True: "DEFAULT", False: "HEURISTIC"}
"""cuDNN's search for the algorithm of a convolution, by whether a graph is exact.

Neither times candidates, so that every session takes the same; the first is the same on every device too.
"""


class OnnxRuntimeCudaBackend(OnnxRuntimeBackend, GraphClock):
    """Runs a bundle's ONNX graphs on a CUDA device, the exact ones without TF32 and deterministically.

    Args:
        bundle: the bundle.
        options: precision, and threads for what is left to the processor.

    Raises:
        BackendUnavailable: this ONNX Runtime has no CUDA provider, or the provider cannot start here.
    """

    name = "onnxruntime-cuda"
    provider = "CUDAExecutionProvider"
    device = CUDA
    clock = "host clock around the synchronised run"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        if self.provider not in ort.get_available_providers():
            raise BackendUnavailable(
                f"the backend {self.name} needs the {self.provider}, which this ONNX Runtime "
                f"({ort.__version__}) was built without: {INSTALL_ORT_CUDA}"
            )
        OnnxRuntimeBackend.__init__(self, bundle, options)
        GraphClock.__init__(self)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()

    def describe(self) -> dict[str, Any]:
        """The device too."""
        return {**super().describe(), "device": self.device}

    def _find_ops(self) -> OpLibrary:
        return find_cuda_ops()

    def _provider_options(self, graph: GraphFile) -> dict[str, str]:
        return {**_SETTINGS, "device_id": "0", "cudnn_conv_algo_search": _ALGORITHMS[graph.exact]}

    def _session_options(self, graph: GraphFile) -> ort.SessionOptions:
        options = super()._session_options(graph)
        options.use_deterministic_compute = graph.exact
        return options

    def _make_session(self, name: str) -> ort.InferenceSession:
        session = super()._make_session(name)
        if self.provider not in session.get_providers():
            raise BackendUnavailable(
                f"the backend {self.name} cannot start: ONNX Runtime found no CUDA device, or not all the "
                f"libraries that its {self.provider} needs; {_LIBRARIES}"
            )
        return session

    def _execute(
        self, graph: str, session: ort.InferenceSession, feeds: dict[str, FloatArray], outputs: list[str]
    ) -> list[FloatArray]:
        binding = session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value, self.device, 0))
        for name in outputs:
            binding.bind_output(name, self.device, 0)
        binding.synchronize_inputs()
        started = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        if self.timed:
            self.add_seconds(graph, time.perf_counter() - started)
        values: list[FloatArray] = binding.copy_outputs_to_cpu()
        return values
