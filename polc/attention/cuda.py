"""Neighbourhood attention by the library of CUDA operators, forward only."""

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

from .checks import check_na2d

VARIABLE = "POLC_CUDA_OP_LIBRARY"
"""Environment variable that names another library, or `none` to do without."""

DIMS = (16, 32, 64)
"""Channels of a head that the kernel takes."""

LARGEST_KERNEL = 255

_TYPES = {torch.float32: 0, torch.float16: 1}
"""Types of q, k, v and of rpb, as polc_na2d_cuda numbers them."""

_ARGUMENTS: list[Any] = [
    *[ctypes.c_int, *[ctypes.c_void_p] * 3],  # type; q, k, v
    *[ctypes.c_int, *[ctypes.c_void_p] * 2],  # rpb's type; rpb, out
    *[ctypes.c_int64] * 6,  # batch, height, width, heads, dim, kernel_size
    *[ctypes.c_float, ctypes.c_void_p],  # scale; stream
]
_REFUSED, _CUDA_ERROR = 1, 2
_ALIGNMENT = 16  # bytes


def na2d_cuda(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """Neighbourhood attention on a CUDA device, on its current stream.

    Products and softmax are float32 for every type. Arguments and result as in `polc.na2d`; dim must be
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
    load()
    if _wants_gradient(q, k, v, rpb):
        raise RuntimeError(
            "the CUDA attention kernel has no gradient: call it under torch.no_grad(), or choose tiled"
        )
    return attend(q, k, v, rpb, kernel_size, scale)


def serves(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int) -> bool:
    """Whether the library is there and takes such arguments of `polc.na2d`, which ask for no gradient."""
    return (
        q.device.type == "cuda"
        and _fits(q, k, v, rpb)
        and q.shape[-1] in DIMS
        and kernel_size <= LARGEST_KERNEL
        and not _wants_gradient(q, k, v, rpb)
        and available()
    )


def attend(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """The attention, outside autograd; arguments as in `polc.na2d`, errors as in `na2d_cuda`."""
    library = load()
    check_na2d(q, k, v, rpb, kernel_size)
    if not _fits(q, k, v, rpb):
        places = ", ".join(f"{t.dtype} on {t.device}" for t in (q, k, v, rpb) if t is not None)
        raise ValueError(
            "the CUDA attention kernel takes float32 or float16 on one CUDA device, and rpb in floats there, "
            f"got {places}"
        )
    tensors = [_aligned(t) for t in (q, k, v)]
    bias = None if rpb is None else rpb.to(rpb.dtype if rpb.dtype in _TYPES else torch.float32).contiguous()
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    given = [_TYPES[q.dtype], *(t.data_ptr() for t in tensors)]
    given += [0, 0] if bias is None else [_TYPES[bias.dtype], bias.data_ptr()]
    with torch.cuda.device(q.device):
        stream = torch.cuda.current_stream().cuda_stream
        status = library.polc_na2d_cuda(*given, out.data_ptr(), *q.shape, kernel_size, scale, stream)
    if status == _REFUSED:
        raise ValueError(f"the CUDA attention kernel: {_last_error(library)}")
    if status == _CUDA_ERROR:
        raise RuntimeError(f"the CUDA attention kernel could not start: {_last_error(library)}")
    return out


def _wants_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _fits(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None) -> bool:
    """Whether types and devices are such as the kernel takes."""
    alike = all(t.dtype == q.dtype and t.device == q.device for t in (k, v))
    bias_fits = rpb is None or (rpb.device == q.device and rpb.is_floating_point())
    return q.dtype in _TYPES and q.device.type == "cuda" and alike and bias_fits


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy, contiguous and aligned as the kernel reads it."""
    tensor = tensor.contiguous()
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def _last_error(library: ctypes.CDLL) -> str:
    text: bytes = library.polc_ops_cuda_error()
    return text.decode()


@cache
def available() -> bool:
    """Whether the library of CUDA operators loads."""
    try:
        load()
    except BackendUnavailable:
        return False
    return True


@cache
def load() -> ctypes.CDLL:
    """The library of CUDA operators, which loads without a device too.

    Raises:
        BackendUnavailable: the library is not there, or does not load.
    """
    path = _path()
    try:
        library = ctypes.CDLL(str(path))
        library.polc_na2d_cuda.restype = ctypes.c_int
        library.polc_na2d_cuda.argtypes = _ARGUMENTS
        library.polc_ops_cuda_error.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        raise BackendUnavailable(f"the CUDA operators do not load from {path}: {error}") from None
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
