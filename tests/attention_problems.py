"""Random attention problems and their exact results, for tests of several kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from polc.attention.reference import na2d_reference


def problem(
    size: tuple[int, int],
    heads: int,
    dim: int,
    kernel: int,
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random q, k, v and, in float32, rpb."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, batch, *size, heads, dim, generator=generator).to(dtype)
    return q, k, v, torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1, generator=generator)


def exact(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel: int) -> Tensor:
    """The attention with scale dim ** -0.5, computed in float64."""
    doubles = [None if t is None else t.double() for t in (q, k, v, rpb)]
    return na2d_reference(*doubles, kernel, q.shape[-1] ** -0.5)


def assert_right(out: Tensor, q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel: int) -> None:
    """Demands a result as near to the exact one as float32 arithmetic and rounding to halves allow.

    In float16 the result is rounded once, and the attention weights and with them their sum may be, each by
    2^-11 of itself.
    """
    expected = exact(q, k, v, rpb, kernel)
    allowed = torch.full_like(expected, 3e-6)
    if out.dtype == torch.float16:
        allowed += 2**-11 * (2 * expected.abs() + exact(q, k, v.abs(), rpb, kernel))
    excess = ((out.double() - expected).abs() - allowed).max()
    assert excess <= 0, f"beyond what is allowed by {excess:.3g}"  # NaN is no number to be below
