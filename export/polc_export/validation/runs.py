"""What every graph is fed in a whole encode and decode of a photo, and what it gives: recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from polc_runtime import Codec
from polc_runtime.backends import Backend, FloatArray
from polc_runtime.backends.wrapper import BackendWrapper
from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.pictures.images import Pixels

HYPER_ANALYSIS = "hyper_analysis"

Size = tuple[int, int, float]
"""Height, width, and where in the range of qualities: 0 for the smallest, 1 for the largest."""
Case = tuple[int, int, float]
"""Height, width and quality."""


@dataclass(frozen=True)
class GraphRun:
    """What one graph was fed and gave."""

    graph: str
    inputs: dict[str, FloatArray]
    outputs: dict[str, FloatArray]


class RecordingBackend(BackendWrapper):
    """Another backend, which keeps what every run of a graph was fed and gave.

    Attributes:
        runs: in the order they were made.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.runs: list[GraphRun] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `polc_runtime.backends.Backend.run`."""
        outputs = self.backend.run(graph, inputs)
        copies = {name: value.copy() for name, value in inputs.items()}  # y_hat is filled step by step
        self.runs.append(GraphRun(graph, copies, dict(outputs)))
        return outputs


def record(codec: Codec, pixels: Pixels, quality: float, variant: str | None = None) -> list[GraphRun]:
    """Runs every graph of a codec once: what encoding and decoding an image takes, and the hyper-analysis.

    Args:
        codec: the codec.
        pixels: uint8 [H,W,3].
        quality: to code at.
        variant: of the image networks; None for the bundle's own.
    """
    recorder = RecordingBackend(codec.backend)
    codec.over(recorder).reconstruct(pixels, quality, variant)
    if codec.bundle.manifest.has_graph(HYPER_ANALYSIS):
        y = recorder.runs[0].outputs["y"]
        recorder.run(HYPER_ANALYSIS, {"y": y, "quality": np.array([quality], np.float32)})
    return recorder.runs


def cases(plan: CodingPlan, sizes: Sequence[Size]) -> list[Case]:
    """Heights and widths that need no padding, and qualities that the plan offers; none of them twice."""
    low, high = plan.quality.min, plan.quality.max
    found = [(*plan.padded_size(height, width), low + share * (high - low)) for height, width, share in sizes]
    return list(dict.fromkeys(found))
