"""Steps of `gpu_check.py` that code, compare and measure with one backend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_check import Check, Facts, Failure, Overtime, Skip
from gpu_compare import compare
from gpu_engines import CODING, engines
from gpu_needs import BENCH, environment_of, need_gpu, need_graphs, need_torch, need_trt_python

REFERENCE = "torch"
"""The run whose results the others are compared with: PyTorch, fp32, on the processor."""

MOST_AT_ONCE = 4
"""Pictures in the larger of the two batches that are measured."""

GRAPHS = "POLC_CUDA_GRAPHS"


@dataclass(frozen=True)
class Run:
    """A way to run the bundle.

    Attributes:
        name: of its results.
        backend: as `--backend` has it.
        device: as `--device` has it.
        precision: fp32 or fp16.
    """

    name: str
    backend: str
    device: str = "cuda"
    precision: str = "fp32"

    @property
    def on_trt(self) -> bool:
        """Whether TensorRT's Python runs it."""
        return self.backend == "tensorrt"


def code(run: Run, check: Check) -> Facts:
    """Codes pictures, and decodes what the reference coded; without CUDA graphs where TensorRT fails with."""
    about = _described(run, check)
    try:
        facts = _coded(run, check, about)
    except Overtime:
        raise
    except Failure as error:
        if not run.on_trt or GRAPHS in check.variables:
            raise
        facts = check.without(GRAPHS, "off", lambda: _coded(run, check, about))
        facts["failed_with_cuda_graphs"] = str(error)
    if run.name != REFERENCE and (_results(check) / REFERENCE).is_dir():
        coded = str(_results(check) / REFERENCE)
        facts["decodes_reference"] = _tried(lambda: check.job("decode", run.on_trt, run=about, files=coded))
    return facts


def _coded(run: Run, check: Check, about: Facts) -> Facts:
    folder = _results(check) / run.name
    shutil.rmtree(folder, ignore_errors=True)
    pictures = check.options.sizes
    if check.options.images is not None:
        pictures = [str(path) for path in sorted(check.options.images.iterdir()) if path.is_file()]
    return check.job("code", run.on_trt, run=about, pictures=pictures, quality=4.0, out=str(folder))


def compared(run: Run, check: Check) -> Facts:
    """Compares a run's files, latents, pixels and predictions with the reference's."""
    folder = _results(check)
    if run.name == REFERENCE:
        raise Skip("it is what the others are compared with")
    for name in (REFERENCE, run.name):
        if not (folder / name).is_dir():
            raise Skip(f"the step code-{name} has left nothing")
    found = compare(folder / REFERENCE, folder / run.name)
    about, coded = _described(Run(REFERENCE, "torch", "cpu"), check), str(folder / run.name)
    return {**found, "reference_decodes": _tried(lambda: check.job("decode", run=about, files=coded))}


def _tried(do: Callable[[], Facts]) -> Facts:
    """What a part of a step finds, or why it failed: what the others found is not lost for it."""
    try:
        return do()
    except Failure as error:
        return {"failed": str(error)}


def latency(run: Run, check: Check) -> Facts:
    """Measures stages and throughput by size; on the processor only what shows that it works."""
    if run.name == REFERENCE:
        raise Skip("it is there to be compared with; its times on the processor say nothing here")
    if run.device != "cuda":
        return _latencies(run, check, check.options.sizes[-1:], 3, (1,), "2")
    batches = (1,) if run.on_trt else (1, MOST_AT_ONCE)
    return _latencies(run, check, check.options.sizes, 10, batches, check.options.pipeline)


def batches(run: Run, check: Check) -> Facts:
    """Builds TensorRT's engines for several pictures at once, beside those for one, and measures them."""
    built = engines(run.precision, check, MOST_AT_ONCE, CODING)
    measured = _latencies(run, check, check.options.sizes, 10, (MOST_AT_ONCE,), "")
    return {"engines": built, "latency": measured}


def _latencies(
    run: Run, check: Check, sizes: Sequence[str], repeats: int, batches: Sequence[int], pipeline: str
) -> Facts:
    """`polc-bench latency` for one size after the other, so that what the first ones gave is kept."""
    about, found = _described(run, check), {}
    failed: Failure | None = None
    for size in sizes:
        out = check.work / f"latency-{run.name}-{size}.json"
        arguments = [
            *("latency", "--bundle", about["bundle"], "--backend", run.backend, "--device", run.device),
            *("--precision", run.precision, "--size", size, "--repeats", str(repeats), "--warmup", "3"),
            *("--pipeline", pipeline, "--batch", ",".join(map(str, batches)), "-o", str(out), "--force"),
            *(("--checkpoint", about["checkpoint"]) if about.get("checkpoint") else ()),
        ]
        out.unlink(missing_ok=True)
        try:
            check.log(check.module(BENCH, *arguments, trt=run.on_trt))
        except Failure as error:
            failed = failed or error
        if out.is_file():
            found[size] = json.loads(out.read_text())
        if isinstance(failed, Overtime):
            break
    if failed is not None:
        failed.result = found or None
        raise failed
    return found


def accuracy(run: Run, check: Check) -> Facts:
    """Measures a task's accuracy."""
    options = check.options
    if options.accuracy is None or options.task is None:
        raise Skip("no labelled pictures (--accuracy and --task)")
    about = _described(run, check)
    out = check.work / f"accuracy-{run.name}.json"
    arguments = [
        *("accuracy", str(options.accuracy), "--task", options.task, "--limit", str(options.limit)),
        *("--bundle", about["bundle"], "--backend", run.backend, "--device", run.device),
        *("--precision", run.precision, "--qualities", "1,4,8", "-o", str(out), "--force"),
    ]
    if about.get("checkpoint"):
        arguments += ["--checkpoint", about["checkpoint"]]
    check.log(check.module(BENCH, *arguments, trt=run.on_trt))
    found = json.loads(out.read_text())
    return {name: found[name] for name in ("description", "images", "results", "failed")}


def _described(run: Run, check: Check) -> Facts:
    """What the jobs take for a run; raises Skip where something that it needs is missing."""
    if run.device == "cuda" or run.on_trt:
        need_gpu()
    if run.on_trt:
        need_trt_python(check)
        if not (check.work / "cache").is_dir():
            raise Skip("no engines have been built")
    need_graphs(check, run.precision, run.backend)
    checkpoint = None
    if run.backend in ("torch", "torchscript"):
        need_torch(check)
    if run.backend == "torch":
        checkpoint = check.options.checkpoint
        if checkpoint is None:
            raise Skip("no checkpoint is named (--checkpoint)")
    found = environment_of(check, run.on_trt)["backends"]
    name = "onnxruntime-cuda" if (run.backend, run.device) == ("onnxruntime", "cuda") else run.backend
    if not found[name]["available"]:
        raise Skip(f"{name}: {found[name]['detail']}")
    about = {"bundle": check.options.bundle, "backend": run.backend, "device": run.device}
    return {**about, "precision": run.precision, "checkpoint": checkpoint and str(checkpoint)}


def _results(check: Check) -> Path:
    return check.work / "results"
