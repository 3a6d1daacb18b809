"""PyTorch as a backend of the runtime: the same graphs, run by the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from polc_runtime.backends import BackendOptions, FloatArray
from polc_runtime.bundle import Bundle, Variant
from polc_runtime.errors import CheckpointError, UsageError

from ..attention import attention_kernel
from ..checkpoint import Checkpoint, load_checkpoint
from ..graphs import GraphSpec
from ..identity import codec_id
from ..model import CodecModel
from ..tasks.graphs import task_graphs
from ..tasks.model import TaskModel
from .device import DeviceBackend, resolve_device, use_threads
from .evaluation import evaluating


class TorchBackend(DeviceBackend):
    """Runs a codec's graphs in PyTorch, in evaluation mode without gradients.

    The graphs that both sides of a stream must agree on run without the native operators. In fp16 the graphs
    that need not agree run under torch's autocast. In fp64 the codec's graphs compute in double precision:
    slow, and the measure of what the others' rounding does. The model is left as it is: only while a graph
    runs is it in evaluation mode. Several threads may run graphs at once.

    Args:
        codec: the model; its device is where the graphs run.
        graphs: more of them by name, such as `polc.tasks.graphs.task_graphs` gives; on the same device.
        variant: of a bundle, that the model is: its image networks have other names there.
        options: precision, threads, and whether native operators may serve.
    """

    name = "torch"

    def __init__(
        self,
        codec: CodecModel,
        graphs: Mapping[str, GraphSpec] | None = None,
        options: BackendOptions | None = None,
        variant: Variant | None = None,
    ) -> None:
        weight = next(codec.parameters())
        super().__init__(options or BackendOptions(), weight.device)
        self.dtype = weight.dtype
        self.codec = codec
        names = {"analysis": variant.analysis, "synthesis": variant.synthesis} if variant else {}
        self.graphs = {names.get(name, name): graph for name, graph in codec.graphs().items()}
        self.graphs |= graphs or {}

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if graph not in self.graphs:
            raise CheckpointError(f"the checkpoint has no graph {graph}; it has {', '.join(self.graphs)}")
        spec = self.graphs[graph]
        use_threads(self.options.threads)
        tensors = [torch.from_numpy(inputs[name]).to(self.torch_device, self.dtype) for name in spec.inputs]
        half = self.options.precision == "fp16" and not spec.exact
        native = self.options.native_ops and not spec.exact
        with (
            evaluating(spec.module),
            attention_kernel(None if native else "tiled"),
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
        options: `checkpoint` is the model's file, or that of one of the bundle's variants; tasks that it
            lacks cannot be run.

    Raises:
        UsageError: no checkpoint is named.
        CheckpointError: the file is not a checkpoint, or of another codec.
        BackendUnavailable: there is no such device.
    """
    if options.checkpoint is None:
        raise UsageError(
            "the backend torch runs the model of a checkpoint, which a bundle does not hold: name the "
            "bundle's by checkpoint=..."
        )
    device = resolve_device(options.device, TorchBackend.name)
    manifest = bundle.manifest
    variants = {variant.codec_id: variant for variant in manifest.variants}
    checkpoint, found = _matching(options.checkpoint, manifest.codec_id, *variants)
    graphs: dict[str, GraphSpec] = {}
    for task in manifest.tasks:
        model = checkpoint.tasks.get(task.name)
        if model is not None:
            graphs |= task_graphs(task.name, model.to(device))
    codec = checkpoint.codec.to(device)
    precise = codec.double() if options.precision == "fp64" else codec
    return TorchBackend(precise, graphs, options, variants.get(found))


def load_reference(path: Path, task: str, identity: bytes) -> TorchBackend:
    """A checkpoint's codec and one of its tasks, under a bundle's name for it: the bundle's counterpart.

    Args:
        path: the checkpoint, in either layout.
        task: the task's name in the bundle; that of the checkpoint's task, unless it has a single one.
        identity: `codec_id` of the bundle.

    Raises:
        CheckpointError: the file is not a checkpoint, of another codec, or has no such task.
    """
    checkpoint, _ = _matching(path, identity)
    return TorchBackend(checkpoint.codec, task_graphs(task, _task(checkpoint, task)))


def _matching(path: Path, *identities: bytes) -> tuple[Checkpoint, bytes]:
    """A checkpoint whose codec has one of those `codec_id`, and that."""
    checkpoint = load_checkpoint(path)
    found = codec_id(checkpoint.codec)
    if found not in identities:
        there = ", ".join(identity.hex()[:8] for identity in identities)
        raise CheckpointError(
            f"{path}: is another codec than the bundle's (codec_id {found.hex()[:8]}, the bundle has {there})"
        )
    return checkpoint, found


def _task(checkpoint: Checkpoint, task: str) -> TaskModel:
    tasks = checkpoint.tasks
    model = next(iter(tasks.values())) if len(tasks) == 1 else tasks.get(task)
    if model is None:
        there = f"it has {', '.join(tasks)}" if tasks else "it has no tasks; name a stage-2 checkpoint"
        raise CheckpointError(f"{checkpoint.path}: has no task {task!r}; {there}")
    return model
