"""The TorchScript backend: a bundle's traced graphs, run by torch on the CPU or a CUDA device."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from polc_runtime.backends import CUDA, BackendOptions, FloatArray
from polc_runtime.backends.made_once import MadeOnce
from polc_runtime.bundle import TORCHSCRIPT, Bundle
from polc_runtime.errors import BackendUnavailable, BundleError

from .device import DeviceBackend, resolve_device, use_threads

_EXPORT = "export it with polc-export --format torchscript"


class TorchScriptBackend(DeviceBackend):
    """Runs a bundle's TorchScript graphs, which hold plain torch operators alone; each is loaded once.

    Torch has one number of threads, for the whole process. Where `options.threads` is given, it is set before
    a graph runs, so that the last backend that ran decides for everybody; otherwise it stays as it is.
    Numbers of threads may differ in the last bits of a sum: encode and decode with the same.

    Args:
        bundle: the bundle.
        options: precision, threads and device.

    Raises:
        BackendUnavailable: the bundle has no TorchScript files, or there is no such device.
    """

    name = "torchscript"

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        if not any(TORCHSCRIPT in graph.formats for graph in bundle.manifest.graphs):
            raise BackendUnavailable(f"{bundle.path} has no TorchScript files: {_EXPORT}")
        super().__init__(options, resolve_device(options.device, self.name))
        self.bundle = bundle
        self._modules: MadeOnce[str, Any] = MadeOnce()

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        entry = self.bundle.manifest.graph(graph, self.options.precision)
        module = self._modules.get(graph, partial(self._load, graph))
        feeds = [
            torch.from_numpy(np.require(inputs[name], np.float32, ("C", "W"))).to(self.torch_device)
            for name in entry.inputs
        ]
        use_threads(self.options.threads)
        try:
            # On CUDA torch fuses operators after the first runs, which rounds differently from then on.
            fuses = not (entry.exact and self.device == CUDA)
            with torch.inference_mode(), torch.jit.optimized_execution(fuses), self.timing(graph):
                results = module(*feeds)
        except RuntimeError as error:
            raise BundleError(
                f"{self.bundle.path}: TorchScript failed in the graph {graph}: {_reason(error)}"
            ) from error
        values = results if isinstance(results, tuple) else (results,)
        if len(values) != len(entry.outputs):
            raise BundleError(
                f"{self.bundle.path}: the graph {graph} gave {len(values)} outputs, expected "
                f"{', '.join(entry.outputs)}"
            )
        arrays = (value.contiguous().cpu().numpy() for value in values)
        return dict(zip(entry.outputs, arrays, strict=True))

    def describe(self) -> dict[str, Any]:
        """As of every torch backend, and what runs the attention."""
        return {**super().describe(), "attention": "portable (part of the traced graph)"}

    def close(self) -> None:
        """Drops every module."""
        super().close()
        self._modules.clear()

    def _load(self, name: str) -> Any:
        entry = self.bundle.manifest.graph(name, self.options.precision)
        if TORCHSCRIPT not in entry.formats:
            raise BackendUnavailable(
                f"{self.bundle.path} has no TorchScript file of the graph {entry.name}: {_EXPORT}"
            )
        stored = entry.formats[TORCHSCRIPT]
        data = self.bundle.read(stored.file, stored.sha256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, and so is what it calls
                module = torch.jit.load(io.BytesIO(data), map_location=self.torch_device).eval()
        except RuntimeError as error:
            raise BundleError(
                f"{self.bundle.path}: torch cannot load {stored.file}: {_reason(error)}"
            ) from error
        move_constants(module, self.torch_device)
        return module


def move_constants(module: Any, device: torch.device) -> None:
    """Has a traced module make its index vectors on a device: some traces name the one they were made on."""
    for node in module.graph.findAllNodes("prim::Constant"):
        if node.output().type().kind() == "DeviceObjType":
            node.s_("value", str(device))


def _reason(error: RuntimeError) -> str:
    """The last line of torch's message, which comes after a trace of the interpreter's stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
