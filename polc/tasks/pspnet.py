"""PSPNet on a dilated ResNet with a deep stem, under the parameter names of hszhao/semseg's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .resample import average_pool

BINS = (1, 2, 3, 6)
ZOOM = 8
WIDTHS = (64, 128, 256, 512)
STEPS = ((1, 1), (2, 1), (1, 2), (1, 4))
"""Stride and dilation of the four residual stages; WIDTHS are their inner widths."""
EXPANSION = 4


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False), nn.BatchNorm2d(outputs)


class Bottleneck(nn.Module):
    """Three convolutions (1x1, 3x3, 1x1) with a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.conv1, self.bn1 = _convolution(inputs, width, 1)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride, dilation)
        self.conv3, self.bn3 = _convolution(width, outputs, 1)
        self.downsample = nn.Sequential(*_convolution(inputs, outputs, 1, stride)) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B,inputs,H,W] -> [B,4*width,H/stride,W/stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class AveragePool(nn.Module):
    """Adaptive average pooling to bins x bins, from maps of any size."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B,C,H,W] -> [B,C,bins,bins]."""
        return average_pool(x, self.bins)


class PyramidPooling(nn.Module):
    """Averages over grids of several sizes, projected, stretched back and joined to the input."""

    def __init__(self, channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        each = channels // len(bins)
        self.features = nn.ModuleList(
            nn.Sequential(AveragePool(count), *_convolution(channels, each, 1), nn.ReLU()) for count in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B,C,H,W] -> [B,2*C,H,W]."""
        size = x.shape[2:]
        pooled = [F.interpolate(f(x), size, mode="bilinear", align_corners=True) for f in self.features]
        return torch.cat([x, *pooled], 1)


def _classifier(inputs: int, width: int, classes: int) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(inputs, width, 3), nn.ReLU(), nn.Dropout2d(0.1), nn.Conv2d(width, classes, 1)
    )


class PSPNet(nn.Module):
    """Pyramid scene parsing network (Zhao et al., CVPR 2017): bins 1, 2, 3, 6 and a zoom of 8.

    Args:
        classes: of the segmentation.
        depths: blocks of the four residual stages: (3, 4, 6, 3) for PSPNet-50.
        widths: inner widths of the four stages; the official ones unless a small model is wanted.
    """

    def __init__(self, classes: int, depths: Sequence[int], widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        stem = ((3, widths[0], 2), (widths[0], widths[0], 1), (widths[0], 2 * widths[0], 1))
        stem_layers = [layer for i, o, s in stem for layer in (*_convolution(i, o, 3, s), nn.ReLU())]
        self.layer0 = nn.Sequential(*stem_layers, nn.MaxPool2d(3, 2, 1))
        channels = 2 * widths[0]
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            setattr(self, f"layer{index + 1}", self._stage(index, channels, width, depth))
            channels = width * EXPANSION
        self.ppm = PyramidPooling(channels, BINS)
        self.cls = _classifier(2 * channels, channels // 4, classes)
        self.aux = _classifier(widths[2] * EXPANSION, widths[2], classes)

    @staticmethod
    def _stage(index: int, inputs: int, width: int, depth: int) -> nn.Sequential:
        stride, dilation = STEPS[index]
        first = Bottleneck(inputs, width, stride, dilation, project=True)
        rest = (Bottleneck(width * EXPANSION, width, 1, dilation, project=False) for _ in range(depth - 1))
        return nn.Sequential(first, *rest)

    def stages(self) -> tuple[nn.Module, ...]:
        """The four residual stages, in order."""
        return tuple(getattr(self, f"layer{index}") for index in range(1, 5))

    @staticmethod
    def zoom(x: Tensor) -> Tensor:
        """Stretches `x` [B,C,h,w] to [B,C,8*(h-1)+1,8*(w-1)+1], corners aligned."""
        size = [(length - 1) * ZOOM + 1 for length in x.shape[2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
