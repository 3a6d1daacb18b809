"""How many pictures a second go through with several under way at once, and what they are busy with."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, TypeVar

from ...backends import DeviceTimed
from ...cli.bench.latency import COMPRESS, DECOMPRESS
from ...codec import Codec
from ...codec.pipeline import Outcome, compress_many, decompress_many
from ...pictures.images import Pixels, encode_image
from ...trace import listening
from .plan import Configuration
from .ratios import CONTEXT, is_context
from .stopwatch import SharedStopwatch

R = TypeVar("R")

Facts = dict[str, Any]
Pipeline = Callable[[int, int], Iterator[Outcome[Any]]]
"""Pictures and workers -> their outcomes."""

SYNTHETIC_FORMAT = ".jpg"
"""What a picture that lies in no file is compressed from."""


def measure_pipelines(
    configuration: Configuration,
    codec: Codec,
    pixels: Pixels,
    data: bytes,
    clock: DeviceTimed | None,
    tell: Callable[[int], None],
) -> list[Facts]:
    """Throughput of compress and decompress for each number of pictures under way that is asked for.

    Args:
        configuration: what is measured.
        codec: its graphs are spans of their own.
        pixels: the picture.
        data: its `.polc` file.
        clock: times graphs on their device; None for none.
        tell: is told the number of each round that is done.

    Raises:
        PolcError: the codec does not take the picture.
    """
    found: list[Facts] = []
    if not configuration.pipeline:
        return found
    pipelines = _pipelines(configuration, codec, _image_file(configuration, pixels), data)
    for done, workers in enumerate(configuration.pipeline, 1 + configuration.repeats):
        for operation, pipeline in pipelines.items():
            facts = _measured(pipeline, workers, configuration.repeats, clock)
            megapixels = configuration.picture.width * configuration.picture.height / 1e6
            rate = {"megapixels_per_second": facts["images_per_second"] * megapixels}
            found.append({"operation": operation, "workers": workers, **facts, **rate})
        tell(1 + done)
    return found


def with_speedup(pipelines: Sequence[Facts], operations: Sequence[Mapping[str, Any]]) -> list[Facts]:
    """Adds the ratio to the rate of the same operation one by one, which reads no image file."""
    single = {each["operation"]: each["images_per_second"] for each in operations}
    return [{**each, "speedup": each["images_per_second"] / single[each["operation"]]} for each in pipelines]


def _pipelines(configuration: Configuration, codec: Codec, image: bytes, data: bytes) -> dict[str, Pipeline]:
    quality = configuration.quality
    known: dict[str, Pipeline] = {
        COMPRESS: lambda count, workers: compress_many(codec, repeat(image, count), quality, workers),
        DECOMPRESS: lambda count, workers: decompress_many(codec, repeat(data, count), workers),
    }
    return {name: known[name] for name in configuration.operations if name in known}


def _image_file(configuration: Configuration, pixels: Pixels) -> bytes:
    path = configuration.picture.path
    return encode_image(pixels, SYNTHETIC_FORMAT) if path is None else Path(path).read_bytes()


def _measured(pipeline: Pipeline, workers: int, repeats: int, clock: DeviceTimed | None) -> Facts:
    """Times `repeats` pictures a worker, after as many as may be under way that are not counted.

    The clock starts with the outcome of the last uncounted one, when all workers are busy, and stops with the
    last of all.
    """
    warmup, count = 2 * workers, repeats * workers
    watch = SharedStopwatch()
    with listening(watch):
        outcomes = pipeline(warmup + count, workers)
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
    return {
        "images": count,
        "seconds": wall,
        "images_per_second": count / wall,
        "stages": _stages(busy, on_device, count, wall, workers),
        "device_busy": None if on_device is None else sum(on_device.values()) / wall,
    }


def _stages(
    busy: Counter[str], on_device: Mapping[str, float] | None, count: int, wall: float, workers: int
) -> list[Facts]:
    """Of each stage: seconds a picture, and its share of the time that the workers have between them."""
    seconds, device = _folded(busy), _folded(on_device or {})
    return [
        {
            "stage": name,
            "seconds": value / count,
            "share": value / (wall * workers),
            "device_seconds": device[name] / count if name in device else None,
        }
        for name, value in seconds.items()
    ]


def _folded(seconds: Mapping[str, float]) -> dict[str, float]:
    """With the nine context steps as one."""
    folded: dict[str, float] = {}
    for name, value in seconds.items():
        key = CONTEXT if is_context(name) else name
        folded[key] = folded.get(key, 0.0) + value
    return folded
