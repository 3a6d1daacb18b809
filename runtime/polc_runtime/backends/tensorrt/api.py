"""What differs between TensorRT 8.6 and 10 or later, in one place; imports it on use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ...errors import BackendUnavailable, PolcError, ResourceError, first_line
from .cuda import INSTALL

MIN_VERSION = (8, 6)
STRONGLY_TYPED = 10
"""Major version from which on a network's types are those of the ONNX file."""

Sink = Callable[[str, str], None]
"""Takes what TensorRT says: how grave it is, in capitals, and the text."""


def import_tensorrt() -> Any:
    """The module tensorrt.

    Raises:
        BackendUnavailable: it is not installed, too old, or one of its libraries is missing.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ModuleNotFoundError as error:
        if error.name != "tensorrt":
            raise BackendUnavailable(
                f"TensorRT needs {error.name}, which is not installed: {INSTALL}"
            ) from None
        raise BackendUnavailable(f"the package tensorrt is not installed: {INSTALL}") from None
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"TensorRT does not load here: {first_line(error)}") from None
    if not hasattr(trt, "__version__"):  # a package of its stubs or libraries alone
        raise BackendUnavailable(f"the package tensorrt is not whole: {INSTALL}")
    if parse_version(trt.__version__) < MIN_VERSION:
        raise BackendUnavailable(f"TensorRT {trt.__version__} is too old, 8.6 or newer is needed: {INSTALL}")
    return trt


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor number of a version such as "10.13.0.35"."""
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def is_strongly_typed(version: str) -> bool:
    """Whether networks of a version of TensorRT take their types from the ONNX file."""
    return parse_version(version)[0] >= STRONGLY_TYPED


def make_logger(trt: Any, sink: Sink) -> Any:
    """A logger that hands on what TensorRT says, down to its details."""

    class _Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            sink(severity.name, message)

    return _Logger()


class LastError:
    """Remembers the last error that TensorRT logged, for messages of ours."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, severity: str, message: str) -> None:
        """See `Sink`."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            self.text = message

    def take(self) -> str:
        """Its first line, in brackets; empty where there was none."""
        text, self.text = self.text.partition("\n")[0].strip(), ""
        return f" ({text})" if text else ""


def create_network(trt: Any, builder: Any) -> Any:
    """An empty network: strongly typed where there is that, else of explicit batch."""
    flags = trt.NetworkDefinitionCreationFlag
    names = ("STRONGLY_TYPED",) if is_strongly_typed(trt.__version__) else ("EXPLICIT_BATCH",)
    return builder.create_network(sum(1 << int(getattr(flags, name)) for name in names))


def set_fp16(trt: Any, config: Any) -> None:
    """Before TensorRT 10: lets layers run in fp16, but for those that are pinned."""
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def prefer_precisions(trt: Any, config: Any) -> None:
    """After `set_fp16`: where TensorRT has no kernel for a pin, a layer may be of another precision."""
    config.clear_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)


def deserialize(runtime: Any, data: bytes, what: str, error: LastError) -> Any:
    """The engine in some bytes.

    Raises:
        PolcError: TensorRT does not take them.
    """
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise PolcError(f"TensorRT does not take {what}{error.take()}: build it again, with --rebuild")
    return engine


def tensor_names(trt: Any, engine: Any) -> tuple[list[str], list[str]]:
    """Names of an engine's inputs and outputs."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return inputs, [name for name in names if name not in inputs]


def create_context(trt: Any, engine: Any) -> Any:
    """An execution context that has no working memory yet.

    Raises:
        ResourceError: there is no room for it.
    """
    if hasattr(trt, "ExecutionContextAllocationStrategy"):
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        raise ResourceError(
            "TensorRT cannot make an execution context: too little memory of the device is free"
        )
    context.nvtx_verbosity = trt.ProfilingVerbosity.NONE  # marks for profilers cost time in every run
    return context


def choose_profile(context: Any, stream: int) -> None:
    """Has a context take the one profile of its engine: TensorRT 8 does that for an engine's first alone.

    Args:
        context: one that has run nothing yet.
        stream: address of the CUDA stream that it will run on.

    Raises:
        PolcError: TensorRT refuses.
    """
    if context.active_optimization_profile < 0 and not context.set_optimization_profile_async(0, stream):
        raise PolcError("TensorRT cannot run an engine in several threads: it was built without that")


def scratch_size(engine: Any) -> int:
    """Bytes of working memory that a context of an engine needs."""
    newer = getattr(engine, "device_memory_size_v2", None)
    return int(engine.device_memory_size if newer is None else newer)


def give_scratch(context: Any, address: int, size: int) -> None:
    """Gives a context its working memory."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address


def share_profile(trt: Any, config: Any) -> None:
    """Lets several contexts run one engine at once, as threads need; from TensorRT 10 on they always may."""
    if not is_strongly_typed(trt.__version__):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def use_own_tactics(trt: Any, config: Any) -> None:
    """Leaves out kernels of cuBLAS and cuDNN, which TensorRT 8.6 would take: engines then need neither."""
    own = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in own))
