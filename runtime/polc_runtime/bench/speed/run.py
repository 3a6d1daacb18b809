"""What `polc-bench latency` does: plans configurations, measures each in its process, writes and prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from ...backends import backend_on
from ...backends.facts import machine_facts, tool_facts
from ...backends.op_library import find_cuda_ops, find_op_library
from ...bundle import Bundle
from ...bundle.bundle import DEFAULT_BUNDLE, names_none
from ...cli.bench.latency import (
    COMMAND,
    COMPRESS,
    DECOMPRESS,
    DEFAULT_SIZES,
    FORMAT,
    INFER,
    NATIVE,
    PORTABLE,
    Request,
)
from ...cli.bench.latency_text import latency_csv, latency_text
from ...cli.bench.options import outputs, write
from ...cli.console import bar_wanted, fail, progress, say
from ...codec.predict import check_size
from ...errors import DataError, UsageError
from ...files.inputs import expand
from ...limits import DEFAULT_LIMITS
from ...pictures.images import INPUT_SUFFIXES, read_image
from ...processors import default_threads
from ..plot import check_plot
from .plan import SYNTHETIC, Configuration, Picture
from .plot import draw_bars

Document = dict[str, Any]
Results = dict[str, Any]
Failure = dict[str, str]

_CHILD = "polc_runtime.bench.speed.child"
_OPERATORS = {"onnxruntime": find_op_library, "onnxruntime-cuda": find_cuda_ops}
"""Backends that run the native operators of a library which may be missing."""
_CHOOSE_ATTENTION = ("tensorrt", "torch")
"""Others that can do with and without their own kernel of the attention."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_NO_SPINNING = {"OPENBLAS_THREAD_TIMEOUT": "4"}
"""Lets OpenBLAS' threads sleep soon after a product, so that they take nothing from what is timed next."""


def run_latency(request: Request) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        PolcError: an option cannot be followed, or nothing could be measured.
    """
    outputs([request.output, request.csv, request.plot], request.force)
    if request.plot is not None:
        check_plot(request.plot)
    bundle = Bundle.load(request.bundle)
    if names_none(request.bundle):
        say(f"notice: using the bundle {DEFAULT_BUNDLE} that comes with polc; name another by --bundle")
    configurations = plan(request, bundle)
    results, failures = _measure(configurations, request.reporting.verbose)
    if not results:
        raise DataError(f"nothing could be measured: {failures[0]['error']}")
    document = _document(request, bundle, results, failures)
    _write(request, document)
    if request.reporting.as_json:
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(latency_text(document, request.reporting.verbose))
    for failure in failures:
        fail(f"{failure['configuration']}: {failure['error']}")
    return 2 if failures else 0


def plan(request: Request, bundle: Bundle) -> list[Configuration]:
    """The configurations that are asked for, checked as far as can be without running a graph.

    Raises:
        PolcError: an option does not fit the bundle, the pictures or another option.
    """
    operations = request.operations or (COMPRESS, DECOMPRESS, *([INFER] if request.task else []))
    if INFER in operations and request.task is None:
        raise UsageError("--operation infer needs --task NAME")
    low, high = bundle.manifest.quality_range
    if not low <= request.quality <= high:
        raise UsageError(f"quality must lie between {low:g} and {high:g}, got {request.quality:g}")
    pictures = _pictures(request)
    for picture in pictures:
        if problem := DEFAULT_LIMITS.size_problem(picture.width, picture.height):
            raise UsageError(problem)
        if INFER in operations:
            task = bundle.manifest.task(str(request.task))
            check_size(task, bundle.manifest.plan, (picture.height, picture.width))
    return [
        Configuration(
            bundle=str(bundle.path),
            backend=backend,
            device=request.device,
            checkpoint=None if request.checkpoint is None else str(request.checkpoint.resolve()),
            attention=attention,
            precision=request.precision,
            threads=threads,
            batch=batch,
            picture=picture,
            quality=request.quality,
            task=request.task if INFER in operations else None,
            operations=operations,
            warmup=request.warmup,
            repeats=request.repeats,
            pipeline=request.pipeline if batch == 1 else (),
        )
        for picture in pictures
        for threads in request.threads or (default_threads(),)
        for batch in request.batches
        for backend in dict.fromkeys(backend_on(name, request.device) for name in request.backends)
        for attention in _attentions(backend, request.attentions)
    ]


def _pictures(request: Request) -> list[Picture]:
    """The named pictures at their own sizes, or a synthetic one of each size."""
    if not request.images:
        return [Picture(SYNTHETIC, width, height) for width, height in request.sizes or DEFAULT_SIZES]
    if request.sizes is not None:
        raise UsageError("name IMAGES, which have sizes of their own, or --size, not both")
    pictures = []
    for source in expand(request.images, INPUT_SUFFIXES, recursive=False):
        if source.path is None:
            raise UsageError("a picture is read by several processes, so it cannot come from standard input")
        height, width = read_image(source.path).pixels.shape[:2]
        pictures.append(Picture(source.name, width, height, str(source.path.resolve())))
    return pictures


def _attentions(backend: str, wanted: tuple[str, ...] | None) -> tuple[str | None, ...]:
    """What to run the attention with; None for the backend's choice, or where it gives none."""
    if backend not in _OPERATORS:
        return wanted if wanted is not None and backend in _CHOOSE_ATTENTION else (None,)
    library = _OPERATORS[backend]()
    if wanted is None:
        return (NATIVE, PORTABLE) if library.registers else (PORTABLE,)
    if NATIVE in wanted and not library.registers:
        raise UsageError(f"--attention native cannot be measured here: {library.reason}")
    return wanted


def _measure(configurations: Sequence[Configuration], verbose: bool) -> tuple[list[Results], list[Failure]]:
    """Results of the configurations that could be measured, and what went wrong with the others."""
    results, failures = [], []
    rounds = sum(each.rounds for each in configurations)
    with progress(range(rounds), "latency", bar_wanted(rounds, verbose)) as bar:
        steps = iter(bar)
        for configuration in configurations:
            try:
                results.append(_measured(configuration, lambda: next(steps, None)))
            except DataError as error:
                failures.append({"configuration": configuration.title, "error": str(error)})
                continue
            if verbose:
                say(f"{configuration.title}: done")
    return results, failures


def _measured(configuration: Configuration, advance: Callable[[], object]) -> Results:
    """What a process finds; `advance` is called after each round of its work.

    Raises:
        DataError: what it could not do.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(configuration.threads),
    )
    assert process.stdin is not None and process.stdout is not None
    message: dict[str, Any] = {}
    try:
        with process.stdin:
            json.dump(configuration.to_dict(), process.stdin)
        for line in process.stdout:
            message = json.loads(line)
            if "round" in message:
                advance()
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if "result" in message:
        result: Results = message["result"]
        return result
    raise DataError(message.get("error", f"its process ended with exit code {code}"))


def _environment(threads: int) -> dict[str, str]:
    """Variables of a process that multiplies with so many threads, and imports what this one does."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    counts = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return {**os.environ, **counts, **_NO_SPINNING, "PYTHONPATH": path}


def _document(request: Request, bundle: Bundle, results: list[Results], failures: list[Failure]) -> Document:
    manifest = bundle.manifest
    return {
        "command": COMMAND,
        "format": FORMAT,
        "tool": tool_facts(),
        "machine": machine_facts(),
        "bundle": {
            "name": bundle.name,
            "path": str(bundle.path),
            "fingerprint": manifest.fingerprint.hex(),
            "codec_id": manifest.codec_id.hex(),
        },
        "quality": request.quality,
        "warmup": request.warmup,
        "repeats": request.repeats,
        "failed": failures,
        "configurations": results,
    }


def _write(request: Request, document: Document) -> None:
    if request.output is not None:
        text = json.dumps(document, indent=2, allow_nan=False)
        write(request.output, f"{text}\n".encode(), request.force)
    if request.csv is not None:
        write(request.csv, latency_csv(document), request.force)
    if request.plot is not None:
        write(request.plot, draw_bars(document, request.plot.suffix), request.force)
