"""PyTorch as a backend of the runtime: the same graphs, run by the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from polc_runtime.backends import BackendOptions, FloatArray
from polc_runtime.bundle import Bundle
from polc_runtime.errors import CheckpointError, UsageError

from ..attention import set_attention_kernel
from ..checkpoint import Checkpoint, load_checkpoint
from ..families.tinylic.codec import Codec
from ..graphs import GraphSpec, codec_graphs, task_graphs
from ..identity import codec_id
from ..tasks.model import TaskModel
from .device import DeviceBackend, settle, use_threads


class TorchBackend(DeviceBackend):
    """Runs a codec's graphs in PyTorch, in evaluation mode without gradients.

    The hyper-synthesis, which both sides of a stream must agree on, runs without the native operators. In
    fp16 the graphs that need not agree run under torch's autocast. In fp64 the codec's graphs compute in
    double precision: slow, and the measure of what the others' rounding does.

    Args:
        codec: the model; its device is where the graphs run.
        graphs: more of them by name, such as `polc.graphs.task_graphs` gives; on the same device.
        options: precision, threads, and whether native operators may serve.
    """

    name = "torch"

    def __init__(
        self,
        codec: Codec,
        graphs: Mapping[str, GraphSpec] | None = None,
        options: BackendOptions | None = None,
    ) -> None:
        super().__init__(options or BackendOptions(), codec.gain.device)
        self.codec = codec.eval()
        set_attention_kernel(codec if not self.options.native_ops else codec.h_s, "tiled")
        self.graphs = {**codec_graphs(codec), **(graphs or {})}
        for spec in self.graphs.values():
            spec.module.eval()

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if graph not in self.graphs:
            raise CheckpointError(f"the checkpoint has no graph {graph}; it has {', '.join(self.graphs)}")
        spec = self.graphs[graph]
        use_threads(self.options.threads)
        dtype = self.codec.gain.dtype
        tensors = [torch.from_numpy(inputs[name]).to(self.torch_device, dtype) for name in spec.inputs]
        half = self.options.precision == "fp16" and not spec.exact
        with (
            torch.inference_mode(),
            torch.autocast(self.device, torch.float16, enabled=half),
            self.timing(graph),
        ):
            results = spec.module(*tensors)
        values = results if isinstance(results, tuple) else (results,)
        return {name: value.float().cpu().numpy() for name, value in zip(spec.outputs, values, strict=True)}


def load_backend(bundle: Bundle, options: BackendOptions) -> TorchBackend:
    """The model that a bundle was made of, from its checkpoint: the backend `torch`.

    Args:
        bundle: the bundle; none of its graphs are run.
        options: `checkpoint` is the model's file, in either layout; tasks that it lacks cannot be run.

    Raises:
        UsageError: no checkpoint is named.
        CheckpointError: the file is no checkpoint, or of another codec.
        BackendUnavailable: there is no such device.
    """
    if options.checkpoint is None:
        raise UsageError(
            "the backend torch runs the model of a checkpoint, which a bundle does not hold: name the "
            "bundle's by --checkpoint (BackendOptions.checkpoint)"
        )
    device = settle(options.device, TorchBackend.name)
    checkpoint = _matching(options.checkpoint, bundle.manifest.codec_id)
    graphs: dict[str, GraphSpec] = {}
    for task in bundle.manifest.tasks:
        model = checkpoint.tasks.get(task.name)
        if model is not None:
            graphs |= task_graphs(task.name, model.to(device))
    codec = checkpoint.codec.to(device)
    return TorchBackend(codec.double() if options.precision == "fp64" else codec, graphs, options)


def load_reference(path: Path, task: str, identity: bytes) -> TorchBackend:
    """A checkpoint's codec and one of its tasks, under a bundle's name for it: the bundle's counterpart.

    Args:
        path: the checkpoint, in either layout.
        task: the task's name in the bundle; that of the checkpoint's task, unless it has a single one.
        identity: `codec_id` of the bundle.

    Raises:
        CheckpointError: the file is no checkpoint, of another codec, or has no such task.
    """
    checkpoint = _matching(path, identity)
    return TorchBackend(checkpoint.codec, task_graphs(task, _task(checkpoint, task)))


def _matching(path: Path, identity: bytes) -> Checkpoint:
    """A checkpoint whose codec has that `codec_id`."""
    checkpoint = load_checkpoint(path)
    found = codec_id(checkpoint.codec)
    if found != identity:
        raise CheckpointError(
            f"{path}: is another codec than the bundle's (codec_id {found.hex()[:8]}, the bundle has "
            f"{identity.hex()[:8]})"
        )
    return checkpoint


def _task(checkpoint: Checkpoint, task: str) -> TaskModel:
    tasks = checkpoint.tasks
    model = next(iter(tasks.values())) if len(tasks) == 1 else tasks.get(task)
    if model is None:
        there = f"it has {', '.join(tasks)}" if tasks else "it has no tasks; name a stage-2 checkpoint"
        raise CheckpointError(f"{checkpoint.path}: has no task {task!r}; {there}")
    return model
