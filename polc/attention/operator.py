"""The registered operator `polc::na2d`: one node to exporters, with this project's kernels behind it."""

from __future__ import annotations

from typing import Any

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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, rpb, ctx.kernel_size, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, rpb)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Recomputes the attention by tiles and differentiates that."""
    rpb = ctx.saved_tensors[3]
    leaves = ctx.saved_tensors if rpb is not None else ctx.saved_tensors[:3]

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return na2d_tiled(q, k, v, bias, ctx.kernel_size, ctx.scale)

    grads = torch.func.vjp(attend, *leaves)[1](grad)
    return (*grads, *([None] * (6 - len(grads))))


na2d_operator.register_autograd(_backward, setup_context=_setup_context)
