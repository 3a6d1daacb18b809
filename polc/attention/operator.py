"""The registered operator `polc::na2d`: what exporters see as one node, with this project's kernels behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from .tiled import na2d_tiled


@torch.library.custom_op("polc::na2d", mutates_args=())
def na2d_operator(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float
) -> Tensor:
    """Neighbourhood attention as one opaque operator. Arguments and result as in `polc.na2d`."""
    return na2d_tiled(q, k, v, rpb, kernel_size, scale)


@na2d_operator.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, scale: float) -> Tensor:
    return torch.empty_like(q)


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, rpb, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, rpb)


def _backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
    leaves = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
    with torch.enable_grad():
        q, k, v, rpb = leaves
        assert q is not None and k is not None and v is not None
        out = na2d_tiled(q, k, v, rpb, ctx.kernel_size, ctx.scale)
    grads = iter(torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad))
    return (*(None if leaf is None else next(grads) for leaf in leaves), None, None)


na2d_operator.register_autograd(_backward, setup_context=_setup_context)
