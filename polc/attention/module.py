"""`na2d`, the checked door to every attention kernel, and the multi-head module built on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from . import cuda, native
from .checks import check_na2d
from .operator import na2d_operator
from .portable import na2d_portable
from .reference import na2d_reference
from .tiled import na2d_tiled

Kernel = Callable[[Tensor, Tensor, Tensor, "Tensor | None", int, float], Tensor]


def na2d_auto(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    """The fastest kernel there is for the arguments.

    Native for float32 on the CPU; cuda for float32 and float16 on a CUDA device where no gradient is asked
    for; else tiled. Tracers and compilers, which see no further than torch's own operators, get tiled too.
    Arguments and result as in `na2d`; differentiable once.
    """
    kernel = na2d_tiled
    if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
        if native.serves(q, k, v, rpb, kernel_size):
            kernel = native.na2d_native
        elif cuda.serves(q, k, v, rpb, kernel_size):
            kernel = cuda.na2d_cuda
    return kernel(q, k, v, rpb, kernel_size, scale)


KERNELS: dict[str, Kernel] = {
    "auto": na2d_auto,
    "reference": na2d_reference,
    "tiled": na2d_tiled,
    "native": native.na2d_native,
    "cuda": cuda.na2d_cuda,
    "operator": na2d_operator,
    "portable": na2d_portable,
}
"""Attention kernels by name; all give the same result.

`native` takes float32 on the CPU alone, `cuda` float32 and float16 on a CUDA device and no gradient.
"""

TRAINING_KERNELS = tuple(name for name in KERNELS if name != "cuda")
"""Those of `KERNELS` that can be differentiated."""


def na2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    scale: float | None = None,
    kernel: str = "auto",
) -> Tensor:
    """Two-dimensional neighbourhood attention with an optional relative position bias.

    Along an axis of length L, query i attends to keys start .. start+k-1, start = clamp(i - k//2, 0, L-k)
    (every key where L < k), with logits scale * q.k + rpb[key - query + k - 1] (NATTEN's rule, Hassani et
    al., CVPR 2023).

    Args:
        q: queries [B,H,W,heads,dim], any H, W >= 1.
        k: keys, same shape.
        v: values, same shape.
        rpb: relative position bias [heads, 2k-1, 2k-1], or None for none.
        kernel_size: k, odd.
        scale: factor on q.k; None for dim ** -0.5.
        kernel: name in `KERNELS`.

    Returns:
        Tensor [B,H,W,heads,dim].

    Raises:
        ValueError: shapes, kernel_size or the kernel's name do not fit.
    """
    check_na2d(q, k, v, rpb, kernel_size)
    _check_name(kernel)
    return KERNELS[kernel](q, k, v, rpb, kernel_size, q.shape[-1] ** -0.5 if scale is None else scale)


class NeighborhoodAttention2d(nn.Module):
    """Multi-head neighbourhood attention on NHWC maps: three projections in, one out.

    Args:
        dim: channels in and out; heads = dim // head_dim.
        head_dim: channels of one head.
        kernel_size: neighbourhood, odd.
        rel_pos_bias: whether to add a learned bias by relative position.
    """

    def __init__(self, dim: int, head_dim: int, kernel_size: int, rel_pos_bias: bool = True) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.kernel_size = kernel_size
        self.kernel = "auto"
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))
        bias_shape = (dim // head_dim, 2 * kernel_size - 1, 2 * kernel_size - 1)
        self.rpb = nn.Parameter(torch.zeros(bias_shape)) if rel_pos_bias else None
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Attends over `x` [B,H,W,dim]; same shape out."""
        q, k, v = (proj(x).unflatten(-1, (-1, self.head_dim)) for proj in (self.q, self.k, self.v))
        kernel = _overriding.get() or self.kernel
        return self.proj(na2d(q, k, v, self.rpb, self.kernel_size, kernel=kernel).flatten(3))


def set_attention_kernel(model: nn.Module, kernel: str) -> None:
    """Makes every attention module below `model` use the named kernel from now on.

    Raises:
        ValueError: no kernel has that name.
    """
    _check_name(kernel)
    for module in model.modules():
        if isinstance(module, NeighborhoodAttention2d):
            module.kernel = kernel


@contextmanager
def attention_kernel(kernel: str | None) -> Iterator[None]:
    """Runs every attention module with one kernel, inside; the modules keep their own for afterwards.

    It holds in the calling thread alone, so that threads may run one model with several kernels at once.

    Args:
        kernel: name in `KERNELS`; None for each module's own.

    Raises:
        ValueError: no kernel has that name.
    """
    if kernel is not None:
        _check_name(kernel)
    token = _overriding.set(kernel)
    try:
        yield
    finally:
        _overriding.reset(token)


_overriding: ContextVar[str | None] = ContextVar("polc_attention_kernel", default=None)


def _check_name(kernel: str) -> None:
    if kernel not in KERNELS:
        raise ValueError(f"no attention kernel is named {kernel!r}; there are {', '.join(KERNELS)}")
