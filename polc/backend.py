"""PyTorch as a backend of the runtime: the same graphs, run by the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from polc_runtime.backends import FloatArray

from .codec import Codec
from .graphs import GraphSpec, codec_graphs


class TorchBackend:
    """Runs a codec's graphs in PyTorch, in evaluation mode without gradients.

    Args:
        codec: the model; its device is where the graphs run.
        graphs: more of them by name, such as `polc.graphs.task_graphs` gives; on the same device.
    """

    name = "torch"

    def __init__(self, codec: Codec, graphs: Mapping[str, GraphSpec] | None = None) -> None:
        self.codec = codec.eval()
        self.graphs = {**codec_graphs(codec), **(graphs or {})}
        for spec in self.graphs.values():
            spec.module.eval()

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `polc_runtime.backends.Backend.run`."""
        spec = self.graphs[graph]
        device = self.codec.gain.device
        tensors = [torch.from_numpy(inputs[name]).to(device) for name in spec.inputs]
        with torch.inference_mode():
            results = spec.module(*tensors)
        values = results if isinstance(results, tuple) else (results,)
        return {name: value.cpu().numpy() for name, value in zip(spec.outputs, values, strict=True)}

    def describe(self) -> dict[str, Any]:
        """See `polc_runtime.backends.Backend.describe`."""
        return {"name": self.name, "version": torch.__version__, "device": str(self.codec.gain.device)}

    def close(self) -> None:
        """Nothing to free."""
