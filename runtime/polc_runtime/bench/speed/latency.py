"""Times of compress, decompress and infer, stage by stage; each configuration in a process of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from ...backends import CPU, backend_on
from ...backends.facts import machine_facts, tool_facts
from ...bundle import Bundle
from ...codec.predict import check_size
from ...errors import DataError, UsageError
from ...limits import DEFAULT_LIMITS
from ...processors import default_threads
from ...trace import OnProgress, Progress, Steps
from .plan import (
    INFER,
    Configuration,
    TimedImage,
    choose_attentions,
    choose_operations,
    timed_images,
)
from .results import ConfigurationTime, Latency, Unmeasured

_CHILD = "polc_runtime.bench.speed.child"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_NO_SPINNING = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""Stops OpenBLAS threads from spinning into the next measurement."""


def latency(
    bundle: str | Path | None = None,
    images: Sequence[str | Path] = (),
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    batches: Sequence[int] = (1,),
    threads: Sequence[int] | None = None,
    backends: Sequence[str] = ("onnxruntime",),
    device: str = CPU,
    checkpoint: Path | None = None,
    attentions: Sequence[str] | None = None,
    precision: str = "fp32",
    quality: float = 4.0,
    task: str | None = None,
    operations: Sequence[str] | None = None,
    warmup: int = 2,
    repeats: int = 10,
    pipeline: Sequence[int] = (),
    progress: OnProgress | None = None,
) -> Latency:
    """Measures the time of compress, decompress and infer, stage by stage, against the arithmetic's limit.

    Every combination of image, threads, batch, backend and attention runs in a process of its own. The limit
    of a graph is its convolutions and linear layers at the rate of matrix products, measured in the same
    process between the runs. docs/evaluation.md defines every number.

    >>> from polc_runtime.bench import latency
    >>> found = latency(
    ...     "nano", sizes=[(192, 192)], threads=[1], attentions=["portable"], operations=["compress"],
    ...     warmup=1, repeats=1,
    ... )
    >>> compress = found.configurations[0].operations[0]
    >>> median = {stage.stage: stage.seconds.median for stage in compress.stages}
    >>> 0 < median["analysis"] < compress.seconds.median
    True

    Args:
        bundle: folder, or name of a packaged one; None for `$POLC_BUNDLE`, else `nano`.
        images: image files, or folders of them; without any, synthetic images of the `sizes`.
        sizes: width and height of synthetic images; None for 768x512.
        batches: images in one run of a graph. Above 1, of compress and decompress only the analysis and the
            synthesis are measured: the entropy model runs image by image.
        threads: CPU threads of a graph; None for as many as there are processors.
        backends: names of backends.
        device: `cpu` or `cuda`.
        checkpoint: weights of the bundle's model, for the backend `torch`.
        attentions: `native`, `portable`; None for both where ONNX Runtime has both, else the backend's own.
        precision: `fp32` or `fp16`, of the graphs that may be either.
        quality: of the compression.
        task: what `infer` predicts.
        operations: `compress`, `decompress`, `infer`; None for all, `infer` only with a task.
        warmup: runs that are not counted, at least 1.
        repeats: runs that are, at least 1.
        pipeline: numbers of images at once, for each of which the throughput is measured too.
        progress: receives a report after each round of a process.

    Raises:
        UsageError: an argument does not fit the bundle, the images or another argument.
        BundleError: there is no such bundle, or it is damaged.
        DataError: no configuration could be measured.
    """
    loaded = Bundle.load(bundle)
    wanted = choose_operations(operations, task)
    coded = timed_images(images, sizes)
    _check(loaded, coded, quality, task if INFER in wanted else None)
    configurations = [
        Configuration(
            bundle=str(loaded.path),
            backend=backend,
            device=device,
            checkpoint=None if checkpoint is None else str(checkpoint.resolve()),
            attention=attention,
            precision=precision,
            threads=count,
            batch=batch,
            picture=picture,
            quality=quality,
            task=task if INFER in wanted else None,
            operations=wanted,
            warmup=warmup,
            repeats=repeats,
            pipeline=tuple(pipeline) if batch == 1 else (),
        )
        for picture in coded
        for count in threads or (default_threads(),)
        for batch in batches
        for backend in dict.fromkeys(backend_on(name, device) for name in backends)
        for attention in choose_attentions(backend, attentions)
    ]
    steps = Steps(sum(each.rounds for each in configurations), progress)
    found = [_measured(configuration, steps) for configuration in configurations]
    failed = tuple(each for each in found if isinstance(each, Unmeasured))
    measured = tuple(each for each in found if isinstance(each, ConfigurationTime))
    if not measured:
        raise DataError(f"nothing could be measured: {failed[0].error}")
    about = {
        "name": loaded.name,
        "path": str(loaded.path),
        "fingerprint": loaded.manifest.fingerprint.hex(),
        "codec_id": loaded.manifest.codec_id.hex(),
    }
    return Latency(tool_facts(), machine_facts(), about, quality, warmup, repeats, failed, measured)


def _check(bundle: Bundle, images: Sequence[TimedImage], quality: float, task: str | None) -> None:
    """Finds what is wrong, as far as that can be without running a graph."""
    low, high = bundle.manifest.quality_range
    if not low <= quality <= high:
        raise UsageError(f"quality must lie between {low:g} and {high:g}, got {quality:g}")
    for image in images:
        if problem := DEFAULT_LIMITS.size_problem(image.width, image.height):
            raise UsageError(problem)
        if task is not None:
            check_size(bundle.manifest.task(task), bundle.manifest.plan, (image.height, image.width))


def _measured(configuration: Configuration, steps: Steps) -> ConfigurationTime | Unmeasured:
    """What a process of its own finds."""
    process = subprocess.Popen(
        [sys.executable, "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(configuration.threads),
    )
    assert process.stdin is not None and process.stdout is not None
    end, message = steps.done + configuration.rounds, None
    try:
        with process.stdin:
            pickle.dump(configuration, process.stdin)
        while isinstance(message := _received(process.stdout), Progress):
            steps.step()
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if isinstance(message, ConfigurationTime):
        steps.step(f"{configuration.title}: done", count=end - steps.done)
        return message
    steps.step(count=end - steps.done)
    error = message if isinstance(message, str) else f"its process ended with exit code {code}"
    return Unmeasured(configuration.title, error)


def _received(stream: IO[bytes]) -> object:
    """The next message of a process; None where it has ended."""
    try:
        return pickle.load(stream)
    except (EOFError, pickle.UnpicklingError):
        return None


def _environment(threads: int) -> dict[str, str]:
    """The environment of a process: its number of threads, and the modules that this process can import."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    counts = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**os.environ, **counts, **_NO_SPINNING, "PYTHONPATH": path}
