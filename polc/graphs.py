"""A graph that a model is deployed as: name, inputs, outputs and axes, and the module that computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from polc_runtime.bundle import Axes


class Graph(nn.Module):
    """One deployable function of a model, as a module that an exporter can trace.

    Args:
        model: whose weights the function reads.
        function: takes and gives tensors, positionally.
    """

    def __init__(self, model: nn.Module, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Calls the function."""
        return self.function(*inputs)


@dataclass(frozen=True)
class GraphSpec:
    """A graph's interface and module.

    Attributes:
        name: as in the bundle.
        inputs: name and axes of each, in order; all float32. In a codec's graphs `h` and `w` count the
            multiples that images are padded to (`CodingPlan.pad`).
        outputs: likewise.
        module: computes the outputs from the inputs, positionally.
        exact: whether both sides of a stream must agree on it (the entropy path): fp32 always, batch 1.
    """

    name: str
    inputs: dict[str, Axes]
    outputs: dict[str, Axes]
    module: nn.Module
    exact: bool = False


def sizes_of(axes: Axes, units: Mapping[str, int]) -> list[int]:
    """The shape that axes have where each unit ("batch", "h", "w") has that size."""
    sizes = []
    for axis in axes:
        factor, _, unit = str(axis).rpartition("*")
        sizes.append(int(factor or 1) * units[unit] if isinstance(axis, str) else axis)
    return sizes
