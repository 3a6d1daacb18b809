"""The steps of `gpu_check.py`, in the order of what is most worth knowing."""

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from gpu_build import build, bundle, environment, machine, trt_site, wheels
from gpu_check import HERE, REPOSITORY, Check, Facts, Failure, Overtime, Skip, Step
from gpu_engines import PLUGIN, engines
from gpu_needs import need_gpu, need_torch
from gpu_runs import REFERENCE, Run, accuracy, batches, code, compared, latency

GPU_MARK = "pytest.mark.gpu"
NANO_CHECKPOINT = REPOSITORY / "models/polc-nano/polc-nano.safetensors"
CUDA_OPS = "POLC_CUDA_OP_LIBRARY"

RUNS = (
    Run(REFERENCE, "torch", "cpu"),
    Run("tensorrt-fp16", "tensorrt", precision="fp16"),
    Run("torch-cuda", "torch"),
    Run("torch-cuda-fp16", "torch", precision="fp16"),
    Run("tensorrt-fp32", "tensorrt"),
    Run("onnxruntime-cuda", "onnxruntime"),
    Run("onnxruntime-cuda-fp16", "onnxruntime", precision="fp16"),
    Run("torchscript-cuda", "torchscript"),
    Run("onnxruntime", "onnxruntime", "cpu"),
)
FIRST = 2
"""Runs that come before the tests and the benchmark of others' kernels."""

LARGEST_ERRORS = {"float32": 1e-5, "float16": 5e-3}
"""Of the attention's kernel, by type, beyond which it is wrong."""


def steps(options: argparse.Namespace) -> list[Step]:
    """All steps; paths of the command line are made absolute."""
    for name in ("trt_python", "pack", "wheels", "images", "accuracy", "checkpoint"):
        path = getattr(options, name)
        setattr(options, name, None if path is None else Path(os.path.abspath(path)))  # noqa: PTH100  links stay
    if Path(options.bundle).is_dir():
        options.bundle = str(Path(options.bundle).resolve())
    if options.checkpoint is None and options.bundle == "nano":
        options.checkpoint = NANO_CHECKPOINT
    if options.wheels is None and options.pack is not None:
        options.wheels = options.pack / "wheels"
    return [
        Step("machine", machine, 30),
        Step("wheels", wheels, 60),
        Step("build", build, 200),
        Step("trt-site", trt_site, 30),
        Step("environment", environment, 60),
        Step("bundle", bundle, 150),
        Step("kernels", kernels, 90),
        *(step for way in RUNS[:FIRST] for step in steps_of(way)),
        Step("gpu-tests", gpu_tests, 120),
        *(step for way in RUNS[FIRST:] for step in steps_of(way)),
        *(Step(f"batches-{way.name}", partial(batches, way), 150) for way in RUNS if way.on_trt),
        Step("attention", attention, 120),
    ]


def steps_of(way: Run) -> list[Step]:
    """All of one run together: what the budget cuts off is the last runs, not the last steps of all."""
    first = [Step(f"engines-{way.precision}", partial(engines, way.precision), 240)] if way.on_trt else []
    parts = (
        ("code", code, 90),
        ("compare", compared, 60),
        ("latency", latency, 120),
        ("accuracy", accuracy, 90),
    )
    return [*first, *(Step(f"{name}-{way.name}", partial(do, way), seconds) for name, do, seconds in parts)]


def kernels(check: Check) -> Facts:
    """Measures the attention's kernel and its error; where it is wrong, the steps after this do without."""
    need_gpu()
    need_torch(check)
    failure: Failure | None = None
    try:
        found = _attention(check, "polc")
    except Failure as error:
        failure, found = error, error.result or {"rows": [], "skipped": {}}
    wrong = [row for row in found["rows"] if not row["max_error"] <= LARGEST_ERRORS[row["dtype"]]]
    failing = [name for name in found["skipped"] if name.startswith("polc ")]
    if wrong or failing or isinstance(failure, Overtime):
        check.variables |= {PLUGIN: "none", CUDA_OPS: "none"}
    if wrong or failing:
        raise Failure(f"the kernel is wrong in {len(wrong)} problems and fails in {len(failing)}", found)
    if failure is not None:
        raise failure
    if not found["rows"]:
        raise Skip(found["skipped"].get("polc", "nothing was measured"))
    return found


def attention(check: Check) -> Facts:
    """Measures others' kernels beside it."""
    need_gpu()
    need_torch(check)
    return _attention(check, "natten,flex")


def _attention(check: Check, names: str) -> Facts:
    out = check.work / "attention.json"
    out.unlink(missing_ok=True)
    try:
        check.log(check.python(HERE / "attention_gpu.py", "--only", names, "--out", out))
    except Failure as error:
        error.result = json.loads(out.read_text()) if out.is_file() else None
        raise
    found: Facts = json.loads(out.read_text())
    return found


def gpu_tests(check: Check) -> Facts:
    """Runs the tests that are marked gpu, on the kernels that were built already."""
    need_gpu()
    need_torch(check)
    report = check.work / "gpu_tests.xml"
    report.unlink(missing_ok=True)
    library = check.site / "polc_runtime/libpolc_ops_cuda.so"
    variables = {CUDA_OPS: str(library)} if library.is_file() else {}
    options = ("--continue-on-collection-errors", "--junitxml", report)
    files = [
        path for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if GPU_MARK in path.read_text()
    ]
    failure = None
    try:
        check.python(
            "-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", *options, *files, **variables
        )
    except Failure as error:
        failure = error
    if not report.is_file():
        raise failure or Failure("pytest wrote no report")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}  # type: ignore[union-attr]
    if counts["failures"] or counts["errors"] or counts["tests"] == 0:
        raise Failure(f"{counts}: {failure or 'no test was found'}", counts)
    return counts
