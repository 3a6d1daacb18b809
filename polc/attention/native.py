"""Neighbourhood attention by the library that ONNX Runtime's operator lies in too: CPU, forward only."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import torch
from torch import Tensor

from polc_runtime.backends.op_library import find_op_library
from polc_runtime.errors import BackendUnavailable

_POINTERS, _SIZES = 5, 6  # of polc_na2d_f32: q, k, v, rpb, out; batch, height, width, heads, dim, kernel
_WRONG_SIZES, _NO_MEMORY = 1, 2


def na2d_native(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention by the native kernel, on `torch.get_num_threads()` threads.

    The number of threads changes no bit of the result. Arguments and result as in `polc.na2d`.

    Raises:
        BackendUnavailable: the library is not there.
        RuntimeError: a gradient is asked for.
        ValueError: a tensor is not float32 on the CPU, or the kernel size or dim is too large.
    """
    given = [t for t in (q, k, v, rpb) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        raise RuntimeError(
            "the native attention kernel has no gradient: call it under torch.no_grad(), or choose tiled"
        )
    for tensor in given:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"the native attention kernel takes float32 on the CPU, got {tensor.dtype} on {tensor.device}"
            )
    contiguous = [t.contiguous() for t in given]
    out = torch.empty(q.shape, dtype=torch.float32, device="cpu")
    pointers = [t.data_ptr() for t in contiguous]
    if rpb is None:
        pointers.append(0)
    function = load()
    status = function(*pointers, out.data_ptr(), *q.shape, kernel_size, scale, torch.get_num_threads())
    if status == _WRONG_SIZES:
        raise ValueError(
            "the native attention kernel takes kernel_size up to 255 and dim up to 4096, "
            f"got {kernel_size} and {q.shape[-1]}"
        )
    if status == _NO_MEMORY:
        raise MemoryError("the native attention kernel could not allocate its working memory")
    return out


@cache
def load() -> Any:
    """The C function `polc_na2d_f32`.

    Raises:
        BackendUnavailable: the library is not there.
    """
    library = find_op_library()
    if library.path is None:
        raise BackendUnavailable(
            f"the native attention kernel is not available: {library.reason}; choose the kernel tiled"
        )
    function = ctypes.CDLL(str(library.path)).polc_na2d_f32
    function.restype = ctypes.c_int
    function.argtypes = [
        *[ctypes.c_void_p] * _POINTERS,
        *[ctypes.c_int64] * _SIZES,
        ctypes.c_float,
        ctypes.c_int,
    ]
    return function
