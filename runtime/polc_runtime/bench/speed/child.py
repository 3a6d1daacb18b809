"""The process that measures one configuration of `latency`.

It reads the configuration from standard input, and writes a report for each round of its work and then the
result, or the error as text. A process of its own gives each configuration its own threads, its own memory,
and matrix products beside its runs. Both ends of the pipe are this program, so objects are pickled.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ...backends import CPU, BackendOptions, DeviceTimed, FloatArray, make_backend
from ...backends.facts import machine_facts
from ...backends.wrapper import device_timed
from ...bitstream import rans
from ...bitstream.container import QUALITY_UNIT, quality_code
from ...bundle import Bundle
from ...codec import Codec
from ...errors import FAILURES
from ...pictures.images import Pixels, pad, to_tensor
from ...trace import Steps
from .instruments import Call, Lap, TimedBackend, lap, peak_bytes, reset_peak, resident_bytes
from .plan import COMPRESS, INFER, PORTABLE, Configuration
from .ratios import Work, operation_time
from .results import ConfigurationTime, Pair
from .sgemm import Sgemm
from .throughput import measure_pipelines

Operation = Callable[[], Any]


class Warm(NamedTuple):
    """What the warm-up of an operation finds: the graphs it ran, and the most memory held meanwhile."""

    calls: list[Call]
    peak: int | None


def main() -> None:
    """Measures what standard input asks for."""
    configuration: Configuration = pickle.load(sys.stdin.buffer)
    warnings.simplefilter("ignore")  # other packages' about themselves
    with _channel() as channel:

        def send(message: object) -> None:
            pickle.dump(message, channel)
            channel.flush()

        try:
            send(measure(configuration, Steps(configuration.rounds, send)))
        except FAILURES as error:
            send(str(error) or "not enough memory")


def _channel() -> IO[bytes]:
    """The standard output so far; from now on what libraries print there goes to standard error."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def measure(configuration: Configuration, steps: Steps) -> ConfigurationTime:
    """Measures a configuration.

    Args:
        configuration: what is measured.
        steps: counts the rounds.

    Raises:
        PolcError: the codec cannot be loaded, or does not take the image.
    """
    bundle = Bundle.load(configuration.bundle)
    pixels = configuration.picture.read()
    data = _compressed(configuration, bundle, pixels)
    start = resident_bytes()
    backend = TimedBackend(make_backend(configuration.backend, bundle, _options(configuration)))
    described = backend.describe()
    device = backend.device
    clock = None if device == CPU else device_timed(backend)
    if clock is not None:
        clock.time_graphs()
    with Codec(bundle, backend, _options(configuration)) as codec:
        works = _operations(configuration, codec, pixels, data)
        warm = {name: _warm_up(work, backend, configuration.warmup) for name, work in works.items()}
        steps.step()
        sgemm, laps = _run(configuration, works, clock, steps)
        rates = sgemm.result()
        limit = Pair(1e9 * rates.limit_gflops, 1e9 * rates.best_gflops) if device == CPU else None
        megapixels = configuration.batch * configuration.picture.megapixels
        times = {
            name: operation_time(
                name,
                laps[name],
                warm[name].calls,
                bundle.manifest,
                limit,
                Work(configuration.batch, megapixels, warm[name].peak, start),
            )
            for name in works
        }
        pipelines = measure_pipelines(configuration, codec, pixels, data, clock, times, steps)
    return ConfigurationTime(
        configuration=configuration,
        device=device,
        device_clock=None if clock is None else clock.clock,
        described=described,
        coder=rans.implementation(),
        file_bytes=len(data),
        start_bytes=start,
        peak_since="operation" if reset_peak() else "start",
        load=machine_facts()["load"],
        sgemm=rates,
        operations=tuple(times.values()),
        pipelines=pipelines,
    )


def _options(configuration: Configuration) -> BackendOptions:
    checkpoint = configuration.checkpoint
    return BackendOptions(
        configuration.precision,
        configuration.threads,
        native_ops=configuration.attention != PORTABLE,
        device=configuration.device,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def _compressed(configuration: Configuration, bundle: Bundle, pixels: Pixels) -> bytes:
    """The image's file, by a codec of its own, which is gone when the measuring begins."""
    with Codec(bundle, configuration.backend, _options(configuration)) as codec:
        return codec.compress(pixels, configuration.quality)


def _operations(
    configuration: Configuration, codec: Codec, pixels: Pixels, data: bytes
) -> dict[str, Operation]:
    """What is run, by name: whole operations, or for a batch the graph inside that takes one."""
    batch, quality, task = configuration.batch, configuration.quality, configuration.task
    code = quality_code(quality, *codec.bundle.manifest.quality_range)
    level = np.full(batch, code / QUALITY_UNIT, np.float32)
    found: dict[str, Operation] = {}
    for operation in configuration.operations:
        if operation == INFER:
            found[INFER] = lambda: codec.infer_many([data] * batch, str(task), batch)
        elif batch == 1 and operation == COMPRESS:
            found[operation] = lambda: codec.compress(pixels, quality)
        elif batch == 1:
            found[operation] = lambda: codec.decompress(data)
        elif operation == COMPRESS:
            images = {"image": np.repeat(to_tensor(pad(pixels, codec.plan.pad)), batch, 0), "quality": level}
            found["analysis"] = _graph(codec, "analysis", images)
        else:
            latents = {"y_hat": np.repeat(codec.latent(data)[None], batch, 0), "quality": level}
            found["synthesis"] = _graph(codec, "synthesis", latents)
    return found


def _graph(codec: Codec, name: str, feeds: dict[str, FloatArray]) -> Operation:
    return lambda: codec.backend.run(name, feeds)


def _warm_up(operation: Operation, backend: TimedBackend, runs: int) -> Warm:
    """Runs an operation without a clock; loads what it needs."""
    reset_peak()
    for _ in range(runs):
        backend.calls.clear()
        operation()
    return Warm(list(backend.calls), peak_bytes())


def _run(
    configuration: Configuration, operations: dict[str, Operation], clock: DeviceTimed | None, steps: Steps
) -> tuple[Sgemm, dict[str, list[Lap]]]:
    """Runs every operation in turn; samples the rate of matrix products before each round and at the end."""
    sgemm = Sgemm(configuration.threads)
    on_device = dict if clock is None else clock.graph_seconds
    on_device()  # of the warm-up
    laps: dict[str, list[Lap]] = {name: [] for name in operations}
    for _ in range(configuration.repeats):
        sgemm.sample()
        for name, operation in operations.items():
            laps[name].append(lap(operation, on_device))
        steps.step()
    sgemm.sample()
    return sgemm, laps


if __name__ == "__main__":
    main()
