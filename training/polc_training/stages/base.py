"""What a training stage is: a model, what of it learns, and the losses of one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Batch = Sequence[Tensor]
Losses = dict[str, Tensor]
"""Scalars by name; `loss` is what is minimised, the others are parts of it or facts to log, detached."""


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate.

    Attributes:
        parameters: what learns.
        scale: factor on the objective's learning rate.
    """

    parameters: Sequence[nn.Parameter]
    scale: float = 1.0


@dataclass(frozen=True)
class Objective:
    """One loss and the parameters that follow it.

    Attributes:
        groups: what learns.
        learning_rate: of Adam.
        clip: largest norm of the gradient; None for no limit.
        scheduled: whether the learning rate follows the schedule.
        optimizer: makes the optimiser of torch parameter groups; Adam unless a stage wants another.
    """

    groups: Sequence[Group]
    learning_rate: float
    clip: float | None = None
    scheduled: bool = True
    optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] = torch.optim.Adam

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of every group."""
        for group in self.groups:
            yield from group.parameters

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimiser over the groups."""
        groups = [
            {"params": list(group.parameters), "lr": self.learning_rate * group.scale}
            for group in self.groups
        ]
        return self.optimizer(groups)


class Stage(nn.Module):
    """A stage of training. Subclasses set `objectives` and say what each step minimises.

    Everything random in `forward` draws from torch's global generator, which a checkpoint keeps.

    Attributes:
        objectives: by name; parameters in none of them do not learn.
    """

    objectives: dict[str, Objective]

    def turn(self, step: int) -> Sequence[str]:
        """Names of the objectives that step number `step` (from 0) minimises, in order."""
        return tuple(self.objectives)

    def forward(self, objective: str, batch: Batch) -> Losses:
        """The losses of an objective on a batch."""
        raise NotImplementedError

    def learners(self) -> nn.Module:
        """The part whose weights are averaged where an exponential moving average is kept."""
        raise NotImplementedError

    def frozen(self) -> Sequence[nn.Module]:
        """Parts that do not learn: `train` leaves them in evaluation mode."""
        return ()

    def learned_state(self) -> dict[str, Tensor]:
        """Parameters and buffers of all but the frozen parts, which every run loads again."""
        still = {id(module) for module in self.frozen()}
        prefixes = tuple(f"{name}." for name, module in self.named_modules() if id(module) in still)
        return {key: value for key, value in self.state_dict().items() if not key.startswith(prefixes)}

    def load_learned_state(self, state: dict[str, Tensor]) -> None:
        """Takes what `learned_state` gave.

        Raises:
            KeyError: the state is another model's.
        """
        if other := state.keys() ^ self.learned_state().keys():
            raise KeyError(f"it has other weights, such as {min(other)}")
        self.load_state_dict(state, strict=False)

    def train(self, mode: bool = True) -> Stage:
        """Sets the mode of everything but the frozen parts, which stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen():
            module.eval().requires_grad_(False)
        return self
