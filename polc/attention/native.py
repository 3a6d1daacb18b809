"""Neighbourhood attention by the library that ONNX Runtime's operator lies in too: float32 on the CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from polc_runtime.backends.op_library import find_op_library
from polc_runtime.errors import BackendUnavailable

from .checks import check_na2d

_FORWARD_POINTERS = 6
"""Of polc_na2d_f32: q, k, v, rpb, out, statistics."""

_BACKWARD_POINTERS = 11
"""Of polc_na2d_backward_f32: q, k, v, rpb, out, statistics, grad and the gradients of q, k, v, rpb."""

_PROBLEM: list[Any] = [*[ctypes.c_int64] * 6, ctypes.c_float, ctypes.c_int]
"""Arguments of both: batch, height, width, heads, dim, kernel_size; scale; threads."""

_DONE, _WRONG_SIZES, _NO_MEMORY = 0, 1, 2

LARGEST_KERNEL, LARGEST_DIM = 255, 4096
"""What bounds the working memory (polc::na2d::check)."""


@dataclass(frozen=True)
class Library:
    """The library's C functions, or why they are not there.

    Attributes:
        forward: polc_na2d_f32; None without a library.
        backward: polc_na2d_backward_f32; None without a library.
        reason: what is missing; empty where nothing is.
    """

    forward: Any = None
    backward: Any = None
    reason: str = ""


@cache
def load() -> Library:
    """Loads the library once.

    Raises:
        BackendUnavailable: `POLC_OP_LIBRARY` names a file that is not there or does not load.
    """
    found = find_op_library()
    if found.path is None:
        return Library(reason=found.reason)
    library = ctypes.CDLL(str(found.path))
    functions = library.polc_na2d_f32, library.polc_na2d_backward_f32
    for function, pointers in zip(functions, (_FORWARD_POINTERS, _BACKWARD_POINTERS), strict=True):
        function.restype = ctypes.c_int
        function.argtypes = [*[ctypes.c_void_p] * pointers, *_PROBLEM]
    return Library(*functions)


def is_native(tensor: Tensor) -> bool:
    """Whether the native kernel takes tensors of this kind: float32 on the CPU."""
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def serves(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int) -> bool:
    """Whether the library is there and takes such arguments of `polc.na2d`."""
    small = kernel_size <= LARGEST_KERNEL and q.shape[-1] <= LARGEST_DIM
    given = (t for t in (q, k, v, rpb) if t is not None)
    return small and all(map(is_native, given)) and load().forward is not None


def attend(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float, save: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The attention, outside autograd; arguments as in `polc.na2d`, errors as in `na2d_native`.

    Returns:
        The result, shaped like q, and, if `save` is set, what the backward pass needs of each query and
        head: [2,B,heads,H,W].
    """
    check_na2d(q, k, v, rpb, kernel_size)
    batch, height, width, heads, _ = q.shape
    out = torch.empty(q.shape)
    statistics = torch.empty((2, batch, heads, height, width)) if save else None
    _call("forward", [q, k, v, rpb, out, statistics], q, kernel_size, scale)
    return out, statistics


def attend_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, out: Tensor, statistics: Tensor,
    kernel_size: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Gradients of q, k, v and, if given, rpb from that of `attend`'s result.

    Args:
        grad: gradient of the result.
        q: queries [B,H,W,heads,dim].
        k: keys, same shape.
        v: values, same shape.
        rpb: relative position bias [heads,2k-1,2k-1], or None.
        out: result of `attend`.
        statistics: from `attend` too.
        kernel_size: k, odd.
        scale: factor on q.k.
    """
    q_grad, k_grad, v_grad = (torch.empty(q.shape) for _ in range(3))
    rpb_grad = None if rpb is None else torch.empty(rpb.shape)
    tensors = [q, k, v, rpb, out, statistics, grad, q_grad, k_grad, v_grad, rpb_grad]
    _call("backward", tensors, q, kernel_size, scale)
    return q_grad, k_grad, v_grad, rpb_grad


def _call(name: str, tensors: Sequence[Tensor | None], q: Tensor, kernel_size: int, scale: float) -> None:
    """Calls a C function on tensors, of which those it writes to are contiguous."""
    library = load()
    if library.forward is None:
        raise BackendUnavailable(
            f"the native attention kernel is not available: {library.reason}; choose the kernel tiled"
        )
    for tensor in tensors:
        if tensor is not None and not is_native(tensor):
            raise ValueError(
                "the native attention kernel takes float32 on the CPU, "
                f"got {tensor.dtype} on {tensor.device}; choose the kernel tiled"
            )
    contiguous = [None if t is None else t.contiguous() for t in tensors]
    pointers = [None if t is None else t.data_ptr() for t in contiguous]
    status = getattr(library, name)(*pointers, *q.shape, kernel_size, scale, torch.get_num_threads())
    if status == _WRONG_SIZES:
        raise ValueError(
            f"the native attention kernel takes kernel_size up to {LARGEST_KERNEL} and dim up to "
            f"{LARGEST_DIM}, got {kernel_size} and {q.shape[-1]}"
        )
    if status == _NO_MEMORY:
        raise MemoryError("the native attention kernel could not allocate its working memory")
    if status != _DONE:
        raise RuntimeError("the native attention kernel failed")


class NativeAttention(torch.autograd.Function):
    """What autograd sees of `attend`; can be differentiated once."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
    ) -> Tensor:
        """Keeps the softmax's statistics for `backward`."""
        out, statistics = attend(q, k, v, rpb, kernel_size, scale, save=True)
        ctx.options = kernel_size, scale
        ctx.save_for_backward(q, k, v, rpb, out, statistics)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k, v and rpb; RuntimeError where they were to be differentiated again."""
        if torch.is_grad_enabled():  # create_graph: its second derivative would silently be zero
            raise RuntimeError("native attention can be differentiated once; use the kernel 'reference'")
        return *attend_backward(grad, *ctx.saved_tensors, *ctx.options), None, None


def na2d_native(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention by the native kernel, on `torch.get_num_threads()` threads.

    The number of threads changes no bit of the result or the gradients. Arguments and result as in
    `polc.na2d`; differentiable once. Works in float32 also under autocast.

    Raises:
        BackendUnavailable: the library is not there.
        ValueError: shapes or kernel_size do not fit, or a tensor is not float32 on the CPU.
    """
    if torch.is_autocast_enabled("cpu") and q.device.type == "cpu" and q.is_floating_point():
        singles = (None if t is None else t.float() for t in (q, k, v, rpb))
        return NativeAttention.apply(*singles, kernel_size, scale).to(q.dtype)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (q, k, v, rpb)):
        return NativeAttention.apply(q, k, v, rpb, kernel_size, scale)
    return attend(q, k, v, rpb, kernel_size, scale)[0]
