"""The library of native operators: where it lies, and whether it loads here."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ..errors import BackendUnavailable

VARIABLE = "POLC_OP_LIBRARY"
"""Environment variable that names another library, or `none` to do without."""

PATTERN = "libpolc_ops.*"
"""Name of the library inside the package; the suffix is the platform's."""

CUDA_PATTERN = "libpolc_ops_cuda.*"
"""The same of the library of CUDA operators."""

TRT_PATTERN = "libpolc_trt_plugin.*"
"""The same of the library of the TensorRT plugin."""

NO_HEADERS = (
    "the native operators were built without ONNX Runtime's headers: set ORT_INCLUDE_DIR and install again"
)
"""The reason given where the library serves PyTorch alone."""


@dataclass(frozen=True)
class OpLibrary:
    """The library of native operators, or why there is none.

    Attributes:
        path: the library, which loads on this machine; None for none.
        reason: what is missing; empty where nothing is.
        registers: whether ONNX Runtime can take its operators.
        isa: the instruction set its kernels use here: baseline, avx2 or avx512; empty without a library.
    """

    path: Path | None
    reason: str = ""
    registers: bool = False
    isa: str = ""

    @property
    def attention(self) -> str:
        """What ONNX Runtime runs the attention with: `native (avx512)`, or `portable (why)`."""
        return f"native ({self.isa})" if self.registers else f"portable ({self.reason})"


NO_OPS = OpLibrary(None, "not asked for")
"""What serves where native operators are not wanted: none."""


def find_op_library() -> OpLibrary:
    """Finds the library that `POLC_OP_LIBRARY` names, else the one built with the package.

    Raises:
        BackendUnavailable: `POLC_OP_LIBRARY` names a file that is not there or does not load.
    """
    named = os.environ.get(VARIABLE, "")
    if named == "none":
        return OpLibrary(None, f"{VARIABLE}=none")
    if named:
        found = _load(Path(named).absolute())
        if found.path is None:
            raise BackendUnavailable(f"{VARIABLE}={named}: {found.reason}; unset it, or set it to none")
        return found
    path = packaged(PATTERN)
    if path is None:
        return OpLibrary(
            None, "the package was built without its native operators (no C++ compiler was usable)"
        )
    return _load(path)


def find_cuda_ops() -> OpLibrary:
    """The native operators that ONNX Runtime takes for CUDA devices, or why there are none."""
    path = packaged(CUDA_PATTERN)
    if path is None:
        return OpLibrary(None, "the package was built without CUDA operators (no CUDA compiler was usable)")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return OpLibrary(None, f"{path} does not load: {error}")
    if not hasattr(library, "RegisterCustomOps"):
        return OpLibrary(None, f"{path.name} has no operators for ONNX Runtime")
    return OpLibrary(path, "", True, "cuda")


def packaged(pattern: str) -> Path | None:
    """The library of that name that was built with the package; None where it was not."""
    folders = import_module("polc_runtime").__path__  # an editable installation has several
    found = (path for folder in folders for path in sorted(Path(folder).glob(pattern)))
    return next(found, None)


def _load(path: Path) -> OpLibrary:
    if not path.is_file():
        return OpLibrary(None, "no such file")
    try:
        library = ctypes.CDLL(str(path))
        library.polc_ops_isa.restype = ctypes.c_char_p
        isa = library.polc_ops_isa().decode()
    except (OSError, AttributeError) as error:
        return OpLibrary(None, f"it does not load: {error}")
    registers = hasattr(library, "RegisterCustomOps")
    return OpLibrary(path, "" if registers else NO_HEADERS, registers, isa)
