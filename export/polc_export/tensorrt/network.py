"""From an ONNX file to a built plan, through TensorRT's builder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from polc_runtime.backends.tensorrt.api import (
    LastError,
    create_context,
    create_network,
    deserialize,
    is_strongly_typed,
    prefer_precisions,
    set_fp16,
    share_profile,
    use_own_tactics,
)
from polc_runtime.backends.tensorrt.engine_cache import Range
from polc_runtime.errors import ExportError

from .inspector import read_layers
from .precision import FLOAT, HALF, NetworkLayer, Verdict, judge, kept_layers

OBEYED, PREFERRED, DROPPED = "obeyed", "preferred", "dropped"
"""What becomes of the pins of layers to fp32: a build that fails with them is tried again with less."""


@dataclass(frozen=True)
class Job:
    """One engine to be built.

    Attributes:
        name: what messages call it.
        model: bytes of the ONNX file.
        precision: fp32 or fp16.
        exact: whether it serves the entropy path.
        tf32: whether TF32 is allowed.
        workspace: working memory that a layer may take, in MiB; None for all there is.
        ranges: shapes of each input.
    """

    name: str
    model: bytes
    precision: str
    exact: bool
    tf32: bool
    workspace: int | None
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class Plan:
    """What was built.

    Attributes:
        data: the serialised engine.
        verdict: what was read back of its precision.
        timing: the timing cache, with what was measured.
        pins: how the pins of layers to fp32 were taken.
    """

    data: bytes
    verdict: Verdict
    timing: bytes
    pins: str = OBEYED


def build(trt: Any, job: Job, timing: bytes, logger: Any, error: LastError) -> Plan:
    """Builds an engine and reads its precision back.

    Args:
        trt: the module tensorrt.
        job: what to build.
        timing: a timing cache, or nothing.
        logger: TensorRT's.
        error: where that leaves the last error.

    Raises:
        ExportError: TensorRT does not read the file, or cannot build the engine.
    """
    builder = trt.Builder(logger)
    network = create_network(trt, builder)
    _parse(trt, network, job, logger)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    share_profile(trt, config)
    use_own_tactics(trt, config)
    if job.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace << 20)
    if not job.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    kept = _set_precision(trt, network, config, job)
    _add_profile(builder, config, job)
    _give_timing(config, timing)
    plan, pins = _plan(trt, builder, network, config, kept)
    if plan is None:
        raise ExportError(f"TensorRT {trt.__version__} cannot build {job.name}{error.take()}")
    data = bytes(plan)
    layers = _read_back(trt, job, data, logger, error)
    verdict = judge(layers, job.precision, job.exact, kept if pins == OBEYED else ())
    return Plan(data, verdict, bytes(config.get_timing_cache().serialize()), pins)


def _plan(trt: Any, builder: Any, network: Any, config: Any, kept: frozenset[str]) -> tuple[Any, str]:
    """The serialised engine, None where there is none, and how its pins were taken.

    TensorRT 8 gives up on some networks because of a pin that it has no kernel for.
    """
    plan, pins = builder.build_serialized_network(network, config), OBEYED
    if plan is None and kept and not is_strongly_typed(trt.__version__):
        prefer_precisions(trt, config)
        plan, pins = builder.build_serialized_network(network, config), PREFERRED
        if plan is None:
            _unpin((network.get_layer(index) for index in range(network.num_layers)), kept)
            plan, pins = builder.build_serialized_network(network, config), DROPPED
    return plan, pins


def _parse(trt: Any, network: Any, job: Job, logger: Any) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(job.model):
        return
    found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
    raise ExportError(
        f"TensorRT {trt.__version__} does not read the ONNX file of {job.name}: "
        f"{' '.join(found[0].split()) if found else 'it gives no reason'}"
    )


def _set_precision(trt: Any, network: Any, config: Any, job: Job) -> frozenset[str]:
    """Sets what the ONNX types do not settle; names of the layers that must be in fp32."""
    if job.precision == FLOAT:
        return frozenset()  # without the flag of fp16 nothing runs below fp32
    strongly_typed = is_strongly_typed(trt.__version__)
    kept = frozenset(layer.name for layer in kept_layers(describe(network), strongly_typed))
    if not strongly_typed:
        set_fp16(trt, config)
        _pin(trt, (network.get_layer(index) for index in range(network.num_layers)), kept)
    return kept


def describe(network: Any) -> list[NetworkLayer]:
    """The layers of a network as plain data."""
    names = {"FLOAT": FLOAT, "HALF": HALF}

    def types(tensors: Iterable[Any]) -> tuple[str, ...]:
        return tuple(names.get(tensor.dtype.name, tensor.dtype.name.lower()) for tensor in tensors if tensor)

    found = []
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        inputs = (layer.get_input(index) for index in range(layer.num_inputs))
        shape = any(tensor.is_shape_tensor for tensor in outputs)
        found.append(NetworkLayer(layer.name, layer.type.name, types(inputs), types(outputs), shape))
    return found


def _pin(trt: Any, layers: Iterable[Any], kept: frozenset[str]) -> None:
    """Pins layers to fp32, and those of their outputs that are fp32 in the ONNX file."""
    for layer in layers:
        if layer.name in kept:
            layer.precision = trt.float32
            for index in range(layer.num_outputs):
                if layer.get_output(index).dtype == trt.float32:
                    layer.set_output_type(index, trt.float32)


def _unpin(layers: Iterable[Any], kept: frozenset[str]) -> None:
    """Undoes `_pin`."""
    for layer in layers:
        if layer.name in kept:
            layer.reset_precision()
            for index in range(layer.num_outputs):
                layer.reset_output_type(index)


def _add_profile(builder: Any, config: Any, job: Job) -> None:
    profile = builder.create_optimization_profile()
    for name, shapes in job.ranges.items():
        profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"TensorRT refuses the shapes of {job.name}: {dict(job.ranges)}")


def _give_timing(config: Any, timing: bytes) -> None:
    """Sets the timing cache; an empty one where TensorRT does not take what there is."""
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _read_back(trt: Any, job: Job, data: bytes, logger: Any, error: LastError) -> list[Any]:
    runtime = trt.Runtime(logger)
    engine = deserialize(runtime, data, job.name, error)
    context = create_context(trt, engine)
    for name, shapes in job.ranges.items():
        context.set_input_shape(name, shapes.opt)
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context  # else the formats of tensors are left out
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    error("INFO", f"the engine as its inspector describes it: {text}")
    return read_layers(text)
