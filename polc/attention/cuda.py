"""Neighbourhood attention by the library of CUDA operators, forward only; not yet run on a GPU."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polc_runtime.backends.op_library import CUDA_PATTERN, packaged
from polc_runtime.errors import BackendUnavailable

VARIABLE = "POLC_CUDA_OP_LIBRARY"
"""Environment variable that names another library, or `none` to do without."""

_POINTERS, _SIZES = 5, 6  # of polc_na2d_cuda_f32: q, k, v, rpb, out; batch, height, width, heads, dim, kernel
_FUNCTIONS = {torch.float32: "polc_na2d_cuda_f32", torch.float16: "polc_na2d_cuda_f16"}
_REFUSED, _CUDA_ERROR = 1, 2
_ALIGNMENT = 16  # bytes


def na2d_cuda(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention on a CUDA device, on its current stream.

    Products, softmax and rpb are float32 for every type. Arguments and result as in `polc.na2d`; dim must be
    16, 32 or 64, kernel_size at most 255. Kernels 3 and 7 are fast, others are right.

    Raises:
        BackendUnavailable: there is no CUDA device, or the library is not there.
        RuntimeError: a gradient is asked for, or CUDA fails.
        ValueError: a tensor is of another type or on another device, or the library refuses the sizes.
    """
    if not torch.cuda.is_available():
        raise BackendUnavailable(
            "the CUDA attention kernel is not available: no CUDA device; choose the kernel tiled"
        )
    library = load()
    _check(q, k, v, rpb)
    tensors = [_aligned(t) for t in (q, k, v)]
    bias = None if rpb is None else rpb.to(torch.float32).contiguous()
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    pointers = [t.data_ptr() for t in tensors] + [0 if bias is None else bias.data_ptr(), out.data_ptr()]
    with torch.cuda.device(q.device):
        stream = torch.cuda.current_stream().cuda_stream
        status = getattr(library, _FUNCTIONS[q.dtype])(*pointers, *q.shape, kernel_size, scale, stream)
    if status == _REFUSED:
        raise ValueError(f"the CUDA attention kernel: {_last_error(library)}")
    if status == _CUDA_ERROR:
        raise RuntimeError(f"the CUDA attention kernel could not start: {_last_error(library)}")
    return out


def _check(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None) -> None:
    """Raises where types or devices do not fit, or a gradient is asked for."""
    given = [t for t in (q, k, v, rpb) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        raise RuntimeError(
            "the CUDA attention kernel has no gradient: call it under torch.no_grad(), or choose tiled"
        )
    places = ", ".join(f"{t.dtype} on {t.device}" for t in given)
    alike = all(t.dtype == q.dtype and t.device == q.device for t in (k, v))
    if q.dtype not in _FUNCTIONS or q.device.type != "cuda" or not alike:
        raise ValueError(
            f"the CUDA attention kernel takes float32 or float16 on one CUDA device, got {places}"
        )
    if rpb is not None and (rpb.device != q.device or not rpb.is_floating_point()):
        raise ValueError(f"the CUDA attention kernel takes rpb as floats on {q.device}, got {places}")


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy, contiguous and aligned as the kernel reads it."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _last_error(library: ctypes.CDLL) -> str:
    text: bytes = library.polc_ops_cuda_error()
    return text.decode()


@cache
def load() -> ctypes.CDLL:
    """The library of CUDA operators, which loads without a device too.

    Raises:
        BackendUnavailable: the library is not there, or does not load.
    """
    path = _path()
    try:
        library = ctypes.CDLL(str(path))
        functions: list[Any] = [getattr(library, name) for name in _FUNCTIONS.values()]
        library.polc_ops_cuda_error.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise BackendUnavailable(f"the CUDA operators do not load from {path}: {error}") from None
    for function in functions:
        function.restype = ctypes.c_int
        function.argtypes = [
            *[ctypes.c_void_p] * _POINTERS,
            *[ctypes.c_int64] * _SIZES,
            ctypes.c_float,
            ctypes.c_void_p,
        ]
    return library


def _path() -> Path:
    named = os.environ.get(VARIABLE, "")
    if named == "none":
        raise BackendUnavailable(f"the CUDA operators are not available: {VARIABLE}=none")
    if named:
        return Path(named).absolute()
    path = packaged(CUDA_PATTERN)
    if path is None:
        raise BackendUnavailable(
            "the CUDA operators are not available: the package was built without them (no nvcc was usable); "
            "install again with nvcc in the PATH, or choose the kernel tiled"
        )
    return path
