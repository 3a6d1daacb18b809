"""What a measurement of latency finds; `Latency.to_dict` is the document of `polc-bench latency`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .plan import Configuration

COMMAND = "latency"
FORMAT = 1
"""Version of the document."""


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs: smallest, median, mean, and interpolated 90th and 99th percentiles."""

    min: float
    median: float
    mean: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """The summary of one or more runs."""
        median, p90, p99 = map(float, np.percentile(seconds, [50, 90, 99]))
        return cls(float(np.min(seconds)), median, float(np.mean(seconds)), p90, p99)

    @property
    def pair(self) -> Pair:
        """The median and the best run."""
        return Pair(self.median, self.min)


@dataclass(frozen=True)
class Pair:
    """Seconds, a rate or a ratio: of medians, and of the best runs alone."""

    median: float
    best: float

    def over(self, other: Pair | None) -> Pair | None:
        """The ratio to another; None where there is nothing to divide by."""
        if other is None or not other.median or not other.best:
            return None
        return Pair(self.median / other.median, self.best / other.best)


@dataclass(frozen=True)
class StageTime:
    """One stage of an operation: a graph, or another span of `polc_runtime.trace`.

    Attributes:
        share: the median over that of the whole operation.
        device_seconds: on the graph's device, without copies; None where no device timed it.
        gemm_flops: arithmetic of convolutions and linear layers, two for a multiply-add; None if unknown.
        limit_seconds: what `gemm_flops` take at the rate of matrix products.
        ratio: time over limit.
    """

    stage: str
    seconds: Timing
    share: float
    device_seconds: Timing | None
    gemm_flops: float | None
    gflops_per_second: float | None
    limit_seconds: Pair | None
    ratio: Pair | None


@dataclass(frozen=True)
class OperationTime:
    """An operation, such as `compress`; of a batch its only graph.

    Attributes:
        stages: in each run their seconds sum to the whole's.
        context_steps: the coding steps together; None where there are none.
        coding_steps: names of the stages that are coding steps.
        ratios: what the operation is judged by; None where there is nothing to divide by.
        images_per_second: at the median.
        megapixels_per_second: likewise, of pixels before padding.
        peak_bytes: most memory held while it was loaded and first run; None if unknown.
        growth_bytes: how much more that is than before the codec was loaded.
    """

    operation: str
    seconds: Timing
    stages: tuple[StageTime, ...]
    context_steps: StageTime | None
    coding_steps: tuple[str, ...]
    ratios: dict[str, Pair | None]
    images_per_second: float
    megapixels_per_second: float
    peak_bytes: int | None
    growth_bytes: int | None

    def folded(self) -> list[StageTime]:
        """The stages, with the coding steps as one."""
        rows: list[StageTime] = []
        for stage in self.stages:
            if stage.stage not in self.coding_steps:
                rows.append(stage)
            elif self.context_steps is not None and self.context_steps not in rows:
                rows.append(self.context_steps)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {name: value for name, value in asdict(self).items() if name != "coding_steps"}


@dataclass(frozen=True)
class StageLoad:
    """One stage while several images are coded at once.

    Attributes:
        seconds: for each image.
        share: of the time that the workers have together.
        device_seconds: for each image on the device; None where no device timed it.
    """

    stage: str
    seconds: float
    share: float
    device_seconds: float | None


@dataclass(frozen=True)
class Throughput:
    """An operation on many images, as many of them at once as there are workers.

    Attributes:
        images: that were counted.
        seconds: of all of them.
        device_busy: part of the time in which a graph ran on the device; None where no device timed graphs.
        megapixels_per_second: of pixels before padding.
        speedup: the rate over that of the same operation one by one, which reads no image file.
    """

    operation: str
    workers: int
    images: int
    seconds: float
    images_per_second: float
    stages: tuple[StageLoad, ...]
    device_busy: float | None
    megapixels_per_second: float
    speedup: float


@dataclass(frozen=True)
class ProductRate:
    """The rate of one matrix product in GFLOP/s, by library and shape (m, k, n)."""

    library: str
    shape: tuple[int, int, int]
    median_gflops: float
    best_gflops: float


@dataclass(frozen=True)
class MatrixRate:
    """The rate of matrix products in GFLOP/s.

    Attributes:
        limit_gflops: the largest median of all libraries and shapes.
        best_gflops: the largest single sample.
        limit_of: library and shape of the limit.
        samples: of each product.
    """

    limit_gflops: float
    best_gflops: float
    limit_of: dict[str, Any]
    samples: int
    rates: tuple[ProductRate, ...]


@dataclass(frozen=True)
class ConfigurationTime:
    """What one configuration took.

    Attributes:
        device: where the graphs ran.
        device_clock: what timed them there; None for nothing.
        described: what the backend says of itself.
        coder: `native` or `python`, the entropy coder.
        file_bytes: size of the image's `.polc` file.
        start_bytes: memory held before the codec was loaded; None if unknown.
        peak_since: `operation`, or `start` where the system cannot reset the peak.
        load: runnable processes of the machine in the last minute; None if unknown.
        sgemm: the rate of matrix products in the same process.
    """

    configuration: Configuration
    device: str
    device_clock: str | None
    described: dict[str, Any]
    coder: str
    file_bytes: int
    start_bytes: int | None
    peak_since: str
    load: float | None
    sgemm: MatrixRate
    operations: tuple[OperationTime, ...]
    pipelines: tuple[Throughput, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        own = {name: value for name, value in vars(self).items() if name != "configuration"}
        return {
            **asdict(self.configuration),
            "title": self.configuration.title,
            **own,
            "sgemm": asdict(self.sgemm),
            "operations": [each.to_dict() for each in self.operations],
            "pipelines": [asdict(each) for each in self.pipelines],
        }


@dataclass(frozen=True)
class Unmeasured:
    """A configuration that could not be measured: its title, and why."""

    configuration: str
    error: str

    def __str__(self) -> str:
        """Both, in one line."""
        return f"{self.configuration}: {self.error}"


@dataclass(frozen=True)
class Latency:
    """Times of every configuration, and what failed instead.

    Attributes:
        tool: versions of what measured.
        machine: the processor.
        bundle: name, path, fingerprint and codec_id.
        warmup: runs of each operation that were not counted.
        repeats: runs that were.
    """

    tool: dict[str, Any]
    machine: dict[str, Any]
    bundle: dict[str, str]
    quality: float
    warmup: int
    repeats: int
    failed: tuple[Unmeasured, ...]
    configurations: tuple[ConfigurationTime, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "command": COMMAND,
            "format": FORMAT,
            **vars(self),
            "failed": [asdict(each) for each in self.failed],
            "configurations": [each.to_dict() for each in self.configurations],
        }
