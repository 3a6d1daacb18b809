"""Swin's shifted windows by index arithmetic: maps of any size, traced in half the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .resample import axis

BLOCKED = -100.0
"""Added to the logits of pairs in one window that are not neighbours in the map (Swin's own value)."""


@dataclass(frozen=True)
class WindowAxis:
    """How one axis of a map is rolled by -shift, filled up with zeros to whole windows, and cut.

    Attributes:
        source: int64 [n,w], which element of the map stands at each place of each window.
        inside: float32 [n,w], 1 where there is one, 0 in the filling.
        region: int64 [n,w], which of three parts a place lies in; the parts are not neighbours in the map.
        back: int64 [L], the place (window * w + offset) of each element of the map.
    """

    source: Tensor
    inside: Tensor
    region: Tensor
    back: Tensor

    @classmethod
    def of(cls, index: Tensor, window: int, shift: int) -> WindowAxis:
        """The cutting of an axis whose indexes 0, 1, ... are given.

        There are two windows at least, the second all filling where one would do: torch.export takes an
        axis of one element for a constant, which torch.jit does not.
        """
        length = index[-1:] + 1
        needed = (index.shape[0] + window - 1) // window
        windows = needed if torch.jit.is_tracing() else torch.sym_max(needed, 2)
        first = torch.arange(windows, device=index.device)[:, None] * window
        place = first + torch.arange(window, device=index.device)
        end = (length + window - 1) // window * window
        region = (place >= end - window).long() + (place >= end - shift).long()
        inside = (place < length).float()
        return cls((place + shift) % length, inside, region, (index + length - shift) % length)


@dataclass(frozen=True)
class Windows:
    """The windows of a map: its two axes."""

    rows: WindowAxis
    columns: WindowAxis

    @classmethod
    def of(cls, x: Tensor, window: tuple[int, int], shift: tuple[int, int]) -> Windows:
        """The windows of a map [B,H,W,C]."""
        return cls(*(WindowAxis.of(axis(x, 1 + i), window[i], shift[i]) for i in range(2)))

    def cut(self, x: Tensor) -> Tensor:
        """A map [B,H,W,C] to its windows [B*n*m, w*w', C], row of windows by row of windows."""
        rows, columns = self.rows, self.columns
        inside = rows.inside[:, :, None, None, None] * columns.inside[:, :, None]
        windows = x[:, rows.source][:, :, :, columns.source] * inside.to(x.dtype)
        return windows.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def join(self, windows: Tensor) -> Tensor:
        """Windows [B*n*m, w*w', C] back to the map [B,H,W,C]."""
        (n, w), (m, v) = self.rows.source.shape, self.columns.source.shape
        x = windows.unflatten(1, (w, v)).unflatten(0, (-1, n, m)).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)[:, self.rows.back][:, :, self.columns.back]

    def mask(self) -> Tensor:
        """What is added to the attention logits: [n*m, w*w', w*w']."""
        region = self.rows.region[:, None, :, None] * 3 + self.columns.region[:, None]
        region = region.flatten(2).flatten(0, 1)
        return BLOCKED * (region[:, :, None] != region[:, None, :]).float()


def swin_stage(stage: Any, x: Tensor) -> Tensor:
    """One stage of timm's Swin on a map [B,H,W,C], as its own forward at that size."""
    x = stage.downsample(x)
    cuts: dict[tuple[int, int], tuple[Windows, Tensor | None]] = {}
    for block in stage.blocks:
        shift = tuple(block.shift_size)
        if shift not in cuts:
            windows = Windows.of(x, block.window_size, shift)
            cuts[shift] = windows, windows.mask() if any(shift) else None
        windows, mask = cuts[shift]
        attended = windows.join(block.attn(windows.cut(block.norm1(x)), mask=mask))
        x = x + block.drop_path1(attended)
        x = x + block.drop_path2(block.mlp(block.norm2(x)))
    return x
