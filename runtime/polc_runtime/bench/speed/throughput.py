"""How many images a second are coded with several at once, and what the workers are busy with."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from ...backends import DeviceTimed
from ...codec import Codec
from ...codec.pipeline import Outcome, compress_many, decompress_many
from ...pictures.images import Pixels, encode_image
from ...trace import Steps, listening
from .instruments import Stopwatch
from .plan import COMPRESS, DECOMPRESS, Configuration, TimedImage
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
    for workers in configuration.pipeline:
        for operation in (COMPRESS, DECOMPRESS):
            if operation in configuration.operations:
                item = data if operation == DECOMPRESS else _image_file(configuration.picture, pixels)
                one_by_one = single[operation].images_per_second
                found.append(_measure(configuration, codec, operation, item, workers, clock, one_by_one))
        steps.step()
    return tuple(found)


def _image_file(image: TimedImage, pixels: Pixels) -> bytes:
    return encode_image(pixels, SYNTHETIC_FORMAT) if image.path is None else Path(image.path).read_bytes()


def _measure(
    configuration: Configuration,
    codec: Codec,
    operation: str,
    item: bytes,
    workers: int,
    clock: DeviceTimed | None,
    one_by_one: float,
) -> Throughput:
    """Times `repeats` images a worker, after twice as many as workers that are not counted.

    The clock starts with the outcome of the last uncounted one, when all workers are busy, and stops with the
    last of all.
    """
    warmup, count = 2 * workers, configuration.repeats * workers
    items, watch = repeat(item, warmup + count), Stopwatch()
    with listening(watch):
        outcomes: Iterator[Outcome[Any]] = (
            compress_many(codec, items, configuration.quality, workers)
            if operation == COMPRESS
            else decompress_many(codec, items, workers)
        )
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
    coding = codec.plan.step_numbers
    device = _folded(on_device or {}, coding)
    stages = tuple(
        StageLoad(
            stage=name,
            seconds=value / count,
            share=value / (wall * workers),
            device_seconds=device[name] / count if name in device else None,
        )
        for name, value in _folded(busy, coding).items()
    )
    return Throughput(
        operation=operation,
        workers=workers,
        images=count,
        seconds=wall,
        images_per_second=count / wall,
        stages=stages,
        device_busy=None if on_device is None else sum(on_device.values()) / wall,
        megapixels_per_second=configuration.picture.megapixels * count / wall,
        speedup=count / wall / one_by_one,
    )


def _folded(seconds: Mapping[str, float], steps: Collection[str]) -> dict[str, float]:
    """With the coding steps as one."""
    folded: dict[str, float] = {}
    for name, value in seconds.items():
        key = CONTEXT if name in steps else name
        folded[key] = folded.get(key, 0.0) + value
    return folded
