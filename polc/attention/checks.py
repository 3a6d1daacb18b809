"""What `na2d` and the kernels that read memory by themselves demand of their arguments."""

from __future__ import annotations

from torch import Tensor


def check_na2d(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int) -> None:
    """Raises ValueError, with the value that is wrong, unless the arguments fit `na2d`."""
    if q.ndim != 5 or k.shape != q.shape or v.shape != q.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (q, k, v))
        raise ValueError(f"expected q, k, v of one shape [B,H,W,heads,dim], got {shapes}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size >= 1, got {kernel_size}")
    expected = (q.shape[3], 2 * kernel_size - 1, 2 * kernel_size - 1)
    if rpb is not None and tuple(rpb.shape) != expected:
        raise ValueError(f"expected rpb of shape {expected}, got {tuple(rpb.shape)}")
