"""What there is on this machine for polc to run on: versions, backends, libraries."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from ..bitstream import rans
from ..errors import BackendUnavailable, PolcError, first_line
from .base import BUILT_IN, ENTRY_POINTS, INSTALL_ORT_CUDA, backend_names
from .facts import machine_facts
from .op_library import (
    CUDA_PATTERN,
    TRT_PATTERN,
    VARIABLE,
    OpLibrary,
    find_cuda_ops,
    find_op_library,
    packaged,
)
from .tensorrt.cuda import INSTALL, gpus
from .tensorrt.plugin import VARIABLE as PLUGIN_VARIABLE

PACKAGES = (
    *("polc", "numpy", "pillow", "click", "onnxruntime", "onnxruntime-gpu"),
    *("torch", "onnx", "onnxscript", "compressai", "timm", "tensorrt", "cuda-bindings"),
    *("matplotlib", "bjontegaard"),
)
"""Distributions whose versions are reported."""

_BINDINGS = "cuda-bindings"
_CUDA_PROVIDER = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Component:
    """Something that may be missing.

    Attributes:
        available: whether it can be used here.
        detail: what was found, or why it cannot be used.
        install: what to run to have it; empty where nothing helps.
    """

    available: bool
    detail: str = ""
    install: str = ""


@dataclass(frozen=True)
class Needs:
    """What a backend takes besides polc.

    Attributes:
        packages: distributions.
        install: what to run for them.
        problem: says in a sentence what else is missing, or nothing.
    """

    packages: tuple[str, ...] = ()
    install: str = ""
    problem: Callable[[], str] = str


def environment() -> dict[str, Any]:
    """Versions, machine, backends and libraries, as JSON-able data."""
    return {
        "versions": versions(),
        "machine": machine_facts(),
        "backends": {name: asdict(backend(name)) for name in _backend_names()},
        "libraries": {
            "native coder": asdict(native_coder()),
            "native operators": asdict(native_operators()),
            "native operators in ONNX Runtime": asdict(registered_operators()),
            "CUDA operators": asdict(cuda_operators()),
            "CUDA operators in ONNX Runtime": asdict(registered_cuda_operators()),
            "TensorRT plugin": asdict(tensorrt_plugin()),
            "CUDA driver": asdict(cuda_driver()),
        },
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of `PACKAGES`; None for what is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def backend(name: str) -> Component:
    """Whether a backend can run here; of those outside the runtime, only what they need is looked for."""
    needs = KNOWN.get(name, Needs())
    points = list(metadata.entry_points(group=ENTRY_POINTS, name=name))
    if name not in BUILT_IN and not points:
        return Component(False, "no package that is installed has such a backend")
    missing = [package for package in needs.packages if _version(package) is None]
    verb = "are" if len(missing) > 1 else "is"
    problem = f"{' and '.join(missing)} {verb} not installed" if missing else needs.problem()
    if problem:
        return Component(False, problem, needs.install)
    if name not in BUILT_IN:
        return Component(True, points[0].value)
    module = BUILT_IN[name].partition(":")[0]
    try:
        import_module(module)
    except (BackendUnavailable, ImportError) as error:
        return Component(False, first_line(error))
    return Component(True, module)


def native_coder() -> Component:
    """The entropy coder in C++."""
    try:
        if rans.implementation() == "native":
            return Component(True)
    except PolcError as error:
        return Component(False, str(error))
    return (
        Component(False, _NOT_BUILT, _BUILD) if rans.is_fallback() else Component(False, "POLC_CODER=python")
    )


def native_operators() -> Component:
    """The library of native operators for processors."""
    library = _op_library()
    if library.path is None:
        return Component(False, library.reason, "" if os.environ.get(VARIABLE) else _BUILD)
    return Component(True, f"{library.path}, {library.isa}")


def registered_operators() -> Component:
    """Whether ONNX Runtime takes the native operators: it is made to."""
    library = _op_library()
    if not library.registers:
        return Component(False, library.reason)
    try:
        import onnxruntime as ort

        ort.SessionOptions().register_custom_ops_library(str(library.path))
    except ImportError:
        return Component(False, "onnxruntime is not installed", "pip install onnxruntime")
    except Exception as error:  # onnxruntime's own classes share no public base
        return Component(False, f"ONNX Runtime refuses them: {first_line(error)}")
    return Component(True, f"onnxruntime {ort.__version__}")


def cuda_operators() -> Component:
    """The library of native operators for NVIDIA GPUs."""
    path = packaged(CUDA_PATTERN)
    if path is None:
        return Component(
            False, "the package was built without them (no CUDA compiler was usable)", _BUILD_CUDA
        )
    return Component(True, str(path))


def registered_cuda_operators() -> Component:
    """Whether the library of CUDA operators has some for ONNX Runtime, and a provider can run them."""
    library = find_cuda_ops()
    if not library.registers:
        return Component(False, library.reason)
    problem = _no_cuda_provider()
    return Component(False, problem, INSTALL_ORT_CUDA) if problem else Component(True, str(library.path))


def tensorrt_plugin() -> Component:
    """The library of the TensorRT plugin; whether TensorRT takes it shows when it is loaded."""
    named = os.environ.get(PLUGIN_VARIABLE)
    path = packaged(TRT_PATTERN) if not named else None if named == "none" else Path(named)
    if path is not None and path.is_file():
        return Component(True, str(path))
    if named:
        return Component(False, f"{PLUGIN_VARIABLE}={named}")
    missing = "the package was built without it (no CUDA compiler, or no TensorRT headers)"
    return Component(False, missing, f"{_BUILD_CUDA} where it finds TensorRT's headers")


def cuda_driver() -> Component:
    """NVIDIA's driver, and the GPUs that it finds; cuda-bindings asks it."""
    try:
        return Component(True, gpus())
    except BackendUnavailable as error:
        return Component(False, str(error), "" if _version(_BINDINGS) else INSTALL)


def _no_cuda_provider() -> str:
    try:
        import onnxruntime as ort
    except ImportError:
        return "onnxruntime is not installed"
    if _CUDA_PROVIDER not in ort.get_available_providers():
        return f"this ONNX Runtime has no {_CUDA_PROVIDER}"
    return _no_gpu() if _version(_BINDINGS) else ""


def _no_gpu() -> str:
    driver = cuda_driver()
    return "" if driver.available else driver.detail


def _op_library() -> OpLibrary:
    """The library, or why there is none, whatever is wrong with it."""
    try:
        return find_op_library()
    except BackendUnavailable as error:
        return OpLibrary(None, str(error))


def _backend_names() -> list[str]:
    return list(dict.fromkeys([*KNOWN, *backend_names()]))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_NOT_BUILT = "the package was built without it (no C++ compiler was usable)"
_BUILD = "install a C++ compiler, and polc again"
_BUILD_CUDA = "install NVIDIA's nvcc, and polc again"

KNOWN = {
    "onnxruntime": Needs(),
    "onnxruntime-cuda": Needs((), INSTALL_ORT_CUDA, _no_cuda_provider),
    "tensorrt": Needs(("tensorrt", _BINDINGS), INSTALL, _no_gpu),
    "torchscript": Needs(("torch", "compressai"), "pip install 'polc[export]'"),
    "torch": Needs(("torch", "compressai"), "pip install 'polc[export]'"),
}
"""What the backends that polc knows of need; others come through entry points."""
