"""The registered operator `polc::na2d`: one node to exporters, with this project's kernels behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import cuda, native, tiled


@torch.library.custom_op("polc::na2d", mutates_args=())
def na2d_operator(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention as one opaque operator, by the native or the CUDA kernel where it can be.

    Arguments and result as in `polc.na2d`.
    """
    if native.serves(q, k, v, rpb, kernel_size):
        return native.attend(q, k, v, rpb, kernel_size, scale)[0]
    if cuda.serves(q, k, v, rpb, kernel_size):
        return cuda.attend(q, k, v, rpb, kernel_size, scale)
    return tiled.na2d_tiled(q, k, v, rpb, kernel_size, scale)


@na2d_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.custom_op("polc::na2d_backward", mutates_args=())
def na2d_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    out: Tensor,
    kernel_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and rpb (empty if that is None) of `na2d_operator`; not differentiable."""
    if native.serves(q, k, v, rpb, kernel_size):
        out, statistics = native.attend(q, k, v, rpb, kernel_size, scale, save=True)
        assert statistics is not None
        *grads, rpb_grad = native.attend_backward(grad, q, k, v, rpb, out, statistics, kernel_size, scale)
    else:
        with torch.autocast(q.device.type, enabled=False):
            *grads, rpb_grad = tiled.attend_backward(grad, q, k, v, rpb, out, None, kernel_size, scale)
    return grads[0], grads[1], grads[2], q.new_empty(0) if rpb_grad is None else rpb_grad


@na2d_backward.register_fake
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    out: Tensor,
    kernel_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v)]
    return like[0], like[1], like[2], q.new_empty(0) if rpb is None else torch.empty_like(rpb)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, rpb, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, rpb, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Computes the attention weights again, so that nothing but inputs and result is kept."""
    q, k, v, rpb, output = ctx.saved_tensors
    *grads, rpb_grad = na2d_backward(grad, q, k, v, rpb, output, ctx.kernel_size, ctx.scale)
    return *grads, None if rpb is None else rpb_grad, None, None


na2d_operator.register_autograd(_backward, setup_context=_setup_context)
