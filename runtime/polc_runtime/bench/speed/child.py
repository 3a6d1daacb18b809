"""The process that measures one configuration of `polc-bench latency`.

It reads the configuration as JSON on standard input, and writes a JSON line for each round of its work and
one with the result, or with the error. A process of its own gives each configuration its own threads, its own
memory, and matrix products beside its runs.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from ...backends import CPU, BackendOptions, DeviceTimed, FloatArray, make_backend
from ...backends.facts import machine_facts
from ...bitstream import rans
from ...bitstream.container import QUALITY_UNIT, quality_code
from ...bundle import Bundle
from ...cli.bench.latency import COMPRESS, DECOMPRESS, INFER, PORTABLE
from ...cli.program import INTERRUPTED, USER_ERROR
from ...codec import Codec
from ...errors import FAILURES
from ...pictures.images import Pixels, pad, to_tensor
from .memory import peak_bytes, reset_peak, resident_bytes
from .plan import Configuration
from .ratios import operation_facts
from .sgemm import Sgemm
from .stopwatch import Call, Lap, TimedBackend, lap
from .throughput import measure_pipelines, with_speedup

Work = Callable[[], Any]


class Warm(NamedTuple):
    """What the warm-up of an operation tells: the graphs it ran, and the most memory held meanwhile."""

    calls: list[Call]
    peak: int | None


def main() -> int:
    """Measures what standard input asks for; returns the exit code."""
    configuration = Configuration.from_dict(json.load(sys.stdin))
    warnings.simplefilter("ignore")  # other packages' about themselves
    with _channel() as channel:

        def tell(**message: Any) -> None:
            print(json.dumps(message), file=channel, flush=True)

        try:
            tell(result=measure(configuration, lambda done: tell(round=done)))
        except FAILURES as error:
            tell(error=str(error) or "not enough memory")
            return USER_ERROR
        except KeyboardInterrupt:
            return INTERRUPTED
    return 0


def _channel() -> TextIO:
    """The standard output of before; from now on what libraries print there goes to standard error."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def measure(configuration: Configuration, tell: Callable[[int], None]) -> dict[str, Any]:
    """Measures a configuration.

    Args:
        configuration: what is measured.
        tell: is told the number of each round that is done.

    Raises:
        PolcError: the codec cannot be loaded, or does not take the picture.
    """
    bundle = Bundle.load(configuration.bundle)
    pixels = configuration.picture.read()
    data = _compressed(configuration, bundle, pixels)
    start = resident_bytes()
    options = _options(configuration)
    backend = TimedBackend(make_backend(configuration.backend, bundle, options))
    device = backend.device
    clock = _device_clock(backend, device)
    with Codec(bundle, backend, options) as codec:
        works = _works(configuration, codec, pixels, data)
        warm = {name: _warm_up(work, backend, configuration.warmup) for name, work in works.items()}
        tell(0)
        sgemm, laps = _run(configuration, works, clock, tell)
        pipelines = measure_pipelines(configuration, codec, pixels, data, clock, tell)
    rates = sgemm.to_dict()
    operations = [
        {
            **operation_facts(name, laps[name], warm[name].calls, bundle.manifest, rates, device),
            **_per_second(configuration, laps[name]),
            **_memory(warm[name].peak, start),
        }
        for name in works
    ]
    return {
        **configuration.to_dict(),
        "title": configuration.title,
        "device": device,
        "device_clock": clock and clock.clock,
        "described": backend.describe(),
        "coder": rans.implementation(),
        "file_bytes": len(data),
        "start_bytes": start,
        "peak_since": "operation" if reset_peak() else "start",
        "load": machine_facts()["load"],
        "sgemm": rates,
        "operations": operations,
        "pipelines": with_speedup(pipelines, operations),
    }


def _options(configuration: Configuration) -> BackendOptions:
    checkpoint = configuration.checkpoint
    return BackendOptions(
        configuration.precision,
        configuration.threads,
        native_ops=configuration.attention != PORTABLE,
        device=configuration.device,
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def _device_clock(backend: TimedBackend, device: str) -> DeviceTimed | None:
    """What times graphs on their device; None on the processor, whose time the host's clock tells."""
    if device == CPU or not isinstance(backend.backend, DeviceTimed):
        return None
    backend.backend.time_graphs()
    return backend.backend


def _compressed(configuration: Configuration, bundle: Bundle, pixels: Pixels) -> bytes:
    """The picture's file, by a codec of its own, which is gone when the measuring begins."""
    with Codec(bundle, configuration.backend, _options(configuration)) as codec:
        return codec.compress(pixels, configuration.quality)


def _works(configuration: Configuration, codec: Codec, pixels: Pixels, data: bytes) -> dict[str, Work]:
    """What is run, by name: whole operations, or for a batch the graph inside that takes one."""
    batch, quality, task = configuration.batch, configuration.quality, configuration.task
    level = np.full(
        batch, quality_code(quality, *codec.bundle.manifest.quality_range) / QUALITY_UNIT, np.float32
    )
    works: dict[str, Work] = {}
    for operation in configuration.operations:
        if operation == INFER:
            works[INFER] = lambda: codec.infer_many([data] * batch, str(task), batch)
        elif batch == 1 and operation == COMPRESS:
            works[COMPRESS] = lambda: codec.compress(pixels, quality)
        elif batch == 1:
            works[DECOMPRESS] = lambda: codec.decompress(data)
        elif operation == COMPRESS:
            images = {"image": np.repeat(to_tensor(pad(pixels, codec.plan.pad)), batch, 0), "quality": level}
            works["analysis"] = _graph(codec, "analysis", images)
        else:
            latents = {"y_hat": np.repeat(codec.latent(data)[None], batch, 0), "quality": level}
            works["synthesis"] = _graph(codec, "synthesis", latents)
    return works


def _graph(codec: Codec, name: str, feeds: dict[str, FloatArray]) -> Work:
    return lambda: codec.backend.run(name, feeds)


def _warm_up(work: Work, backend: TimedBackend, runs: int) -> Warm:
    """Runs an operation without a clock; loads what it needs."""
    reset_peak()
    for _ in range(runs):
        backend.calls.clear()
        work()
    return Warm(list(backend.calls), peak_bytes())


def _run(
    configuration: Configuration,
    works: dict[str, Work],
    clock: DeviceTimed | None,
    tell: Callable[[int], None],
) -> tuple[Sgemm, dict[str, list[Lap]]]:
    """Runs every operation in turn; samples the rate of matrix products before each round and at the end."""
    sgemm = Sgemm(configuration.threads)
    on_device = dict if clock is None else clock.graph_seconds
    on_device()  # of the warm-up
    laps: dict[str, list[Lap]] = {name: [] for name in works}
    for repeat in range(configuration.repeats):
        sgemm.sample()
        for name, work in works.items():
            laps[name].append(lap(work, on_device))
        tell(1 + repeat)
    sgemm.sample()
    return sgemm, laps


def _per_second(configuration: Configuration, laps: list[Lap]) -> dict[str, float]:
    """Pictures and million pixels per second, at the median time; pixels before padding."""
    rate = configuration.batch / float(np.median([each.total for each in laps]))
    picture = configuration.picture
    return {
        "images_per_second": rate,
        "megapixels_per_second": rate * picture.width * picture.height / 1e6,
    }


def _memory(peak: int | None, start: int | None) -> dict[str, int | None]:
    """The most that was held, and how much more that is than before the codec was loaded."""
    growth = None if peak is None or start is None else peak - start
    return {"peak_bytes": peak, "growth_bytes": growth}


if __name__ == "__main__":
    sys.exit(main())
