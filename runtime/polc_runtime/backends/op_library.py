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

_FUNCTIONS = ("polc_ops_isa", "polc_na2d_f32", "polc_na2d_backward_f32", "RegisterCustomOps")
"""What the library must have: the last is what ONNX Runtime calls, the others PyTorch."""


@dataclass(frozen=True)
class OpLibrary:
    """The library of native operators, or why there is none.

    Attributes:
        path: the library, which loads on this machine; None for none.
        reason: what is missing; empty where nothing is.
        isa: the instruction set its kernels use here: baseline, avx2 or avx512; empty without a library.
    """

    path: Path | None
    reason: str = ""
    isa: str = ""

    @property
    def registers(self) -> bool:
        """Whether ONNX Runtime can take its operators."""
        return self.path is not None

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
    library = _open(path, ("RegisterCustomOps",))
    return OpLibrary(None, library) if isinstance(library, str) else OpLibrary(path, isa="cuda")


def packaged(pattern: str) -> Path | None:
    """The library of that name that was built with the package; None where it was not."""
    folders = import_module("polc_runtime").__path__  # an editable installation has several
    found = (path for folder in folders for path in sorted(Path(folder).glob(pattern)))
    return next(found, None)


def _load(path: Path) -> OpLibrary:
    if not path.is_file():
        return OpLibrary(None, "no such file")
    library = _open(path, _FUNCTIONS)
    if isinstance(library, str):
        return OpLibrary(None, library)
    library.polc_ops_isa.restype = ctypes.c_char_p
    return OpLibrary(path, isa=library.polc_ops_isa().decode())


def _open(path: Path, functions: tuple[str, ...]) -> ctypes.CDLL | str:
    """A library that has some functions, or why it cannot be used."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"it does not load: {error}"
    missing = [name for name in functions if not hasattr(library, name)]
    return f"it is of an older version, without {missing[0]}; install again" if missing else library
