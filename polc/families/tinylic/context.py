"""The nine-step context model: scales and means of each coding step from what was decoded before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polc_runtime.bitstream.schedule import Step, nine_steps

from .presets import ModelConfig


def decoded_mask(kernel_size: int, step: Step, before: list[Step]) -> Tensor:
    """Taps of a spatial-context kernel that may see positions decoded before: float32 [k, k].

    A tap (dr, dc) is kept when, seen from every position of the step, it lands on a decoded sub-grid.
    """
    decoded = {position for earlier in before for position in earlier.positions}
    radius = kernel_size // 2
    mask = torch.zeros(kernel_size, kernel_size)
    for row in range(kernel_size):
        for column in range(kernel_size):
            seen = {((r + row - radius) % 2, (c + column - radius) % 2) for r, c in step.positions}
            mask[row, column] = float(seen <= decoded)
    return mask


class SpatialContext(nn.Conv2d):
    """Masked convolution over the positions of the same group that are decoded already."""

    mask: Tensor

    def __init__(self, channels: int, kernel_size: int, step: Step, before: list[Step]) -> None:
        super().__init__(channels, 2 * channels, kernel_size)
        self.register_buffer("mask", decoded_mask(kernel_size, step, before), persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.apply_mask())
        self.apply_mask()

    def apply_mask(self) -> None:
        """Zeroes the masked taps; training keeps them at zero."""
        with torch.no_grad():
            self.weight.mul_(self.mask)

    def at(self, y_hat: Tensor, row: int, column: int) -> Tensor:
        """Context of the sub-grid (row, column) alone: [B,C,h,w] -> [B,2C,h/2,w/2]."""
        radius = self.kernel_size[0] // 2
        padded = F.pad(y_hat, (radius - column, radius - 1 + column, radius - row, radius - 1 + row))
        weight = self.weight * self.mask if self.training else self.weight
        return F.conv2d(padded, weight, self.bias, stride=2)


def _channel_net(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, width, 5, padding=2),
        nn.GELU(),
        nn.Conv2d(width, width, 5, padding=2),
        nn.GELU(),
        nn.Conv2d(width, outputs, 3, padding=1),
    )


def entropy_widths(outputs: int, last: bool) -> tuple[int, int]:
    """Official hidden widths of a group's entropy-parameter net with that many outputs."""
    return (outputs, outputs) if last else (outputs * 10 // 6, outputs * 8 // 6)


class ContextModel(nn.Module):
    """Channel context, spatial context and entropy parameters of the nine coding steps.

    The entropy-parameter nets are 1x1, so each step is computed at its own positions alone.
    """

    SPATIAL_KERNELS = {1: 3, 2: 5, 3: 5, 5: 5, 7: 5}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.steps = nine_steps(config.latent_channels)
        starts = sorted({step.channels.start for step in self.steps})
        self.group_of = [starts.index(step.channels.start) for step in self.steps]
        self.first_of_group = [group not in self.group_of[:i] for i, group in enumerate(self.group_of)]
        params = 2 * config.latent_channels
        self.channel = nn.ModuleList()
        self.entropy = nn.ModuleList()
        start = 0
        for group, size in enumerate(config.groups):
            width = config.context_width or size
            self.channel.append(_channel_net(params + start, width, 2 * size))
            start += size
            last = group == len(config.groups) - 1
            named = config.entropy_width
            first, second = (named, named) if named else entropy_widths(2 * size, last)
            self.entropy.append(
                nn.Sequential(
                    nn.Conv2d(params + (2 if last else 4) * size, first, 1),
                    nn.GELU(),
                    nn.Conv2d(first, second, 1),
                    nn.GELU(),
                    nn.Conv2d(second, 2 * size, 1),
                )
            )
        self.spatial = nn.ModuleDict()
        for index, kernel_size in self.SPATIAL_KERNELS.items():
            step = self.steps[index]
            before = [s for s in self.steps[:index] if s.channels == step.channels]
            size = step.channels.stop - step.channels.start
            self.spatial[str(index)] = SpatialContext(size, kernel_size, step, before)

    def spatial_net(self, index: int) -> SpatialContext:
        """The spatial context of a step, one of `SPATIAL_KERNELS`."""
        return cast(SpatialContext, self.spatial[str(index)])

    def channel_context(self, group: int, params: Tensor, y_hat: Tensor | None) -> Tensor:
        """Context of a group from the groups before it.

        Args:
            group: 0..3.
            params: output of h_s [B,2M,h,w].
            y_hat: decoded latent [B,M,h,w]; only the groups before are read, so None will do for group 0.

        Returns:
            Tensor [B,2Cg,h,w].
        """
        if group == 0:
            return self.channel[0](params)
        assert y_hat is not None
        start = self.steps[self.group_of.index(group)].channels.start
        return self.channel[group](torch.cat([params, y_hat[:, :start]], 1))

    def step_parameters(
        self, index: int, params: Tensor, y_hat: Tensor | None, channel_context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scales and means of one step, in push order.

        Args:
            index: 0..8.
            params: output of h_s [B,2M,h,w].
            y_hat: decoded latent [B,M,h,w], zeros where undecoded; not read in a group's first step.
            channel_context: of the step's group [B,2Cg,h,w].

        Returns:
            Scales and means, each [B,C,h',w'] of the step's shape.
        """
        step = self.steps[index]
        net = self.entropy[self.group_of[index]]
        if step.all_positions:
            scales, means = net(torch.cat([params, channel_context], 1)).chunk(2, 1)
            return scales, means
        scales, means = [], []
        for row, column in step.positions:
            here = channel_context[:, :, row::2, column::2]
            if self.first_of_group[index]:
                spatial = torch.zeros_like(here)
            else:
                assert y_hat is not None
                spatial = self.spatial_net(index).at(y_hat[:, step.channels], row, column)
            found = net(torch.cat([params[:, :, row::2, column::2], spatial, here], 1)).chunk(2, 1)
            scales.append(found[0])
            means.append(found[1])
        return torch.cat(scales, 1), torch.cat(means, 1)

    def forward(self, params: Tensor, code: Callable[[Step, Tensor, Tensor], Tensor], like: Tensor) -> Tensor:
        """Runs the nine steps in order.

        Args:
            params: output of h_s [B,2M,h,w].
            code: called with (step, scales, means) in order; gives the step's decoded values, same shape.
            like: any tensor with the latent's shape [B,M,h,w].

        Returns:
            The decoded latent y_hat [B,M,h,w].
        """
        y_hat = torch.zeros_like(like)
        context = params
        for step in self.steps:
            if self.first_of_group[step.index]:
                context = self.channel_context(self.group_of[step.index], params, y_hat)
            values = code(step, *self.step_parameters(step.index, params, y_hat, context))
            y_hat = scatter(y_hat, step, values)
        return y_hat


def gather(latent: Tensor, step: Step) -> Tensor:
    """A step's elements of a latent [B,M,h,w], in push order: [B,C,h',w']."""
    part = latent[:, step.channels]
    if step.all_positions:
        return part
    return torch.cat([part[:, :, row::2, column::2] for row, column in step.positions], 1)


def scatter(latent: Tensor, step: Step, values: Tensor) -> Tensor:
    """A copy of the latent with a step's elements set; differentiable."""
    latent = latent.clone()
    if step.all_positions:
        latent[:, step.channels] = values
        return latent
    for (row, column), part in zip(step.positions, values.chunk(len(step.positions), 1), strict=True):
        latent[:, step.channels, row::2, column::2] = part
    return latent
