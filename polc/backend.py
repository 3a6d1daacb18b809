"""PyTorch as a backend of the runtime: the same graphs, run by the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from polc_runtime.backends import FloatArray
from polc_runtime.errors import CheckpointError

from .attention import set_attention_kernel
from .checkpoint import load_checkpoint
from .codec import Codec
from .graphs import GraphSpec, codec_graphs, task_graphs
from .identity import codec_id


class TorchBackend:
    """Runs a codec's graphs in PyTorch, in evaluation mode without gradients.

    The hyper-synthesis, which both sides of a stream must agree on, runs without the native operators.

    Args:
        codec: the model; its device is where the graphs run.
        graphs: more of them by name, such as `polc.graphs.task_graphs` gives; on the same device.
    """

    name = "torch"

    def __init__(self, codec: Codec, graphs: Mapping[str, GraphSpec] | None = None) -> None:
        self.codec = codec.eval()
        set_attention_kernel(codec.h_s, "tiled")
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


def load_reference(path: Path, task: str, identity: bytes) -> TorchBackend:
    """A checkpoint's codec and one of its tasks, under a bundle's name for it: the bundle's counterpart.

    Args:
        path: the checkpoint, in either layout.
        task: the task's name in the bundle; that of the checkpoint's task, unless it has a single one.
        identity: `codec_id` of the bundle.

    Raises:
        CheckpointError: the file is no checkpoint, of another codec, or has no such task.
    """
    checkpoint = load_checkpoint(path)
    found = codec_id(checkpoint.codec)
    if found != identity:
        raise CheckpointError(
            f"{path}: is another codec than the bundle's (codec_id {found.hex()[:8]}, the bundle has "
            f"{identity.hex()[:8]})"
        )
    tasks = checkpoint.tasks
    model = next(iter(tasks.values())) if len(tasks) == 1 else tasks.get(task)
    if model is None:
        there = f"it has {', '.join(tasks)}" if tasks else "it has no tasks; name a stage-2 checkpoint"
        raise CheckpointError(f"{path}: has no task {task!r}; {there}")
    return TorchBackend(checkpoint.codec, task_graphs(task, model))
