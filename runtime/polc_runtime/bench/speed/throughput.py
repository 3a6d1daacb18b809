"""How many images a second are coded with several at once, and what the workers are busy with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from ...backends import DeviceTimed
from ...codec import Codec
from ...codec.pipeline import Outcome, compress_many, decompress_many
from ...pictures.images import Pixels, encode_image
from ...trace import Steps, listening
from .instruments import SharedStopwatch
from .plan import COMPRESS, DECOMPRESS, Configuration
from .ratios import CONTEXT
from .results import OperationTime, StageLoad, Throughput

SYNTHETIC_FORMAT = ".jpg"
"""The file that a synthetic image is compressed from."""


def measure_pipelines(
    configuration: Configuration,
    codec: Codec,
    pixels: Pixels,
    data: bytes,
    clock: DeviceTimed | None,
    single: Mapping[str, OperationTime],
    steps: Steps,
) -> tuple[Throughput, ...]:
    """Throughput of compress and decompress for each number of workers that is asked for.

    Args:
        configuration: what is measured.
        codec: its graphs are spans of their own.
        pixels: the image, uint8 [H,W,3].
        data: its `.polc` file.
        clock: times graphs on their device; None for none.
        single: the operations one by one, by name.
        steps: counts the rounds.

    Raises:
        PolcError: the codec does not take the image.
    """
    found: list[Throughput] = []
    if not configuration.pipeline:
        return ()
    path = configuration.picture.path
    image = encode_image(pixels, SYNTHETIC_FORMAT) if path is None else Path(path).read_bytes()
    for workers in configuration.pipeline:
        for operation in (COMPRESS, DECOMPRESS):
            if operation in configuration.operations:
                item = image if operation == COMPRESS else data
                pipeline = _Pipeline(codec, operation, item, configuration.quality, workers)
                megapixels = configuration.picture.megapixels
                found.append(pipeline.measure(configuration.repeats, clock, megapixels, single[operation]))
        steps.step()
    return tuple(found)


class _Pipeline:
    """One operation with several images at once."""

    def __init__(self, codec: Codec, operation: str, item: bytes, quality: float, workers: int) -> None:
        self.codec, self.operation, self.item = codec, operation, item
        self.quality, self.workers = quality, workers

    def measure(
        self, repeats: int, clock: DeviceTimed | None, megapixels: float, single: OperationTime
    ) -> Throughput:
        """Times `repeats` images a worker, after twice as many as workers that are not counted.

        The clock starts with the outcome of the last uncounted one, when all workers are busy, and stops with
        the last of all.
        """
        warmup, count = 2 * self.workers, repeats * self.workers
        watch = SharedStopwatch()
        with listening(watch):
            outcomes = self._outcomes(warmup + count)
            for _ in range(warmup):
                next(outcomes).result()
            before, started = watch.seconds(), time.perf_counter()
            if clock is not None:
                clock.graph_seconds()
            for outcome in outcomes:
                outcome.result()
            wall = time.perf_counter() - started
        busy = watch.seconds()
        busy.subtract(before)
        on_device = None if clock is None else clock.graph_seconds()
        return Throughput(
            operation=self.operation,
            workers=self.workers,
            images=count,
            seconds=wall,
            images_per_second=count / wall,
            stages=self._stages(busy, on_device or {}, count, wall),
            device_busy=None if on_device is None else sum(on_device.values()) / wall,
            megapixels_per_second=megapixels * count / wall,
            speedup=count / wall / single.images_per_second,
        )

    def _outcomes(self, count: int) -> Iterator[Outcome[Any]]:
        if self.operation == COMPRESS:
            return compress_many(self.codec, repeat(self.item, count), self.quality, self.workers)
        return decompress_many(self.codec, repeat(self.item, count), self.workers)

    def _stages(
        self, busy: Counter[str], on_device: Mapping[str, float], count: int, wall: float
    ) -> tuple[StageLoad, ...]:
        steps = self.codec.plan.step_numbers
        seconds, device = _folded(busy, steps), _folded(on_device, steps)
        return tuple(
            StageLoad(
                stage=name,
                seconds=value / count,
                share=value / (wall * self.workers),
                device_seconds=device[name] / count if name in device else None,
            )
            for name, value in seconds.items()
        )


def _folded(seconds: Mapping[str, float], steps: Collection[str]) -> dict[str, float]:
    """With the coding steps as one."""
    folded: dict[str, float] = {}
    for name, value in seconds.items():
        key = CONTEXT if name in steps else name
        folded[key] = folded.get(key, 0.0) + value
    return folded
