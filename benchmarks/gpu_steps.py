"""The steps of `gpu_check.py`, in the order of what is most worth knowing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from gpu_check import HERE, REPOSITORY, Check, Facts, Failure, Skip, Step
from gpu_compare import compare
from gpu_needs import (
    BENCH,
    environment_of,
    first_line,
    last_line,
    need_gpu,
    need_graphs,
    need_torch,
    need_trt_python,
    tensorrt_version,
)

GPU_MARK = "pytest.mark.gpu"
NANO_CHECKPOINT = REPOSITORY / "models/polc-nano/polc-nano.safetensors"
REFERENCE = "torch"
"""The run whose results the others are compared with: PyTorch, fp32, on the processor."""

BUILD_NEEDS = ("scikit_build_core", "nanobind")
PARTS = {
    "native coder": "a C++ compiler",
    "native operators": "a C++ compiler",
    "CUDA operators": "nvcc",
}
"""Native parts that a build must give where it finds what they need."""


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


RUNS = (
    Run(REFERENCE, "torch", "cpu"),
    Run("onnxruntime", "onnxruntime", "cpu"),
    Run("tensorrt-fp16", "tensorrt", precision="fp16"),
    Run("torch-cuda", "torch"),
    Run("tensorrt-fp32", "tensorrt"),
    Run("torch-cuda-fp16", "torch", precision="fp16"),
    Run("onnxruntime-cuda", "onnxruntime"),
    Run("onnxruntime-cuda-fp16", "onnxruntime", precision="fp16"),
    Run("torchscript-cuda", "torchscript"),
)
MOST_AT_ONCE = 4
"""Pictures in the larger of the two batches that are measured."""
FIRST = 3
"""Runs that come before the tests and the kernels' benchmark."""


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

    def of(way: Run) -> list[Step]:
        """All of one run together: what the budget cuts off is the last runs, not the last steps of all."""
        first = [Step(f"engines-{way.precision}", partial(engines, way.precision), 200)] if way.on_trt else []
        parts = (
            ("code", code, 90),
            ("compare", compared, 60),
            ("latency", latency, 90),
            ("accuracy", accuracy, 90),
        )
        return [
            *first,
            *(Step(f"{name}-{way.name}", partial(do, way), seconds) for name, do, seconds in parts),
        ]

    return [
        Step("machine", machine, 30),
        Step("wheels", wheels, 60),
        Step("build", build, 200),
        Step("trt-site", trt_site, 30),
        Step("environment", environment, 60),
        *(step for way in RUNS[:FIRST] for step in of(way)),
        Step("gpu-tests", gpu_tests, 120),
        Step("attention", attention, 60),
        *(step for way in RUNS[FIRST:] for step in of(way)),
    ]


def machine(check: Check) -> Facts:
    """What machine this is: GPU, driver, compilers, Pythons."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    return {
        "gpu": first_line(["nvidia-smi", query, "--format=csv,noheader"]),
        "nvcc": last_line(["nvcc", "--version"]),
        "cmake": first_line(["cmake", "--version"]),
        "python": sys.version.split()[0],
        "trt_python": check.options.trt_python and first_line([str(check.options.trt_python), "--version"]),
        "processors": os.cpu_count(),
    }


def wheels(check: Check) -> Facts:
    """Installs wheels that were carried here beside the project."""
    folder = check.options.wheels
    if check.options.installed:
        raise Skip("--installed: nothing is installed")
    found = sorted(folder.glob("*.whl")) if folder is not None and folder.is_dir() else []
    if not found:
        raise Skip("there are no wheels (--wheels or --pack)")
    check.python("-m", "pip", "install", *_OFFLINE, "--target", check.site, *found)
    return {"wheels": [path.name for path in found]}


_OFFLINE = (
    "--quiet",
    "--no-index",
    "--no-deps",
    "--no-build-isolation",
    "--upgrade",
    "--root-user-action=ignore",
)


def build(check: Check) -> Facts:
    """Builds and installs the project, kernels and all, beside the packages that are there."""
    if check.options.installed:
        raise Skip("--installed: the polc that is there is measured")
    missing = [name for name in BUILD_NEEDS if importlib.util.find_spec(name) is None]
    if shutil.which("cmake") is None:
        missing.append("cmake")
    if missing:
        raise Skip(f"{', '.join(missing)} not installed")
    variables = {}
    for name, folder in (("ORT_INCLUDE_DIR", "onnxruntime"), ("TENSORRT_INCLUDE_DIR", "tensorrt")):
        headers = check.options.pack and check.options.pack / folder
        if headers and any(headers.glob("*.h")):
            variables[name] = str(headers)
    check.python("-m", "pip", "install", *_OFFLINE, "--target", check.site, REPOSITORY, **variables)
    libraries = environment_of(check)["libraries"]
    absent = [
        f"{part} ({found['detail']})"
        for part, found in libraries.items()
        if part in PARTS and not found["available"] and (part != "CUDA operators" or shutil.which("nvcc"))
    ]
    if absent:
        raise Failure(f"built without {', '.join(absent)}")
    return {"headers": variables, "libraries": libraries}


def trt_site(check: Check) -> Facts:
    """Lays out the torch-free packages for TensorRT's Python, with what was built for it."""
    need_trt_python(check)
    check.trt_site.mkdir(exist_ok=True)
    for package in (REPOSITORY / "runtime/polc_runtime", REPOSITORY / "export/polc_export"):
        shutil.copytree(package, check.trt_site / package.name, dirs_exist_ok=True)
    coder = sorted((check.options.pack / "coder").glob("_rans*")) if check.options.pack else []
    plugins = sorted(check.site.glob("polc_runtime/libpolc_trt_plugin*"))
    for path in (*coder, *plugins):
        shutil.copy2(path, check.trt_site / "polc_runtime")
    version = tensorrt_version(check)
    return {"tensorrt": version, "carried": [path.name for path in (*coder, *plugins)]}


def environment(check: Check) -> Facts:
    """What polc finds here, in both Pythons."""
    trt = environment_of(check, trt=True) if check.trt_site.is_dir() else None
    return {"python": environment_of(check), "trt_python": trt}


def gpu_tests(check: Check) -> Facts:
    """Runs the tests that are marked gpu."""
    need_gpu()
    need_torch(check)
    report = check.work / "gpu_tests.xml"
    report.unlink(missing_ok=True)
    options = ("--continue-on-collection-errors", "--junitxml", report)
    files = [
        path for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if GPU_MARK in path.read_text()
    ]
    failure = None
    try:
        check.python("-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *options, *files)
    except Failure as error:
        failure = error
    if not report.is_file():
        raise failure or Failure("pytest wrote no report")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}  # type: ignore[union-attr]
    if counts["failures"] or counts["errors"] or counts["tests"] == 0:
        raise Failure(f"{counts}: {failure or 'no test was found'}")
    return counts


def engines(precision: str, check: Check) -> Facts:
    """Builds TensorRT engines for the sizes that are measured."""
    need_gpu()
    need_trt_python(check)
    need_graphs(check, precision, "tensorrt")
    sizes = [tuple(-(-int(side) // 64) * 64 for side in size.split("x")) for size in check.options.sizes]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    best = f"{sizes[-1][1]}x{sizes[-1][0]}"
    shapes = {"least": "192x192", "best": best, "most": f"{height}x{width}"}
    batch = f"1:1:{MOST_AT_ONCE}"
    bundle = check.options.bundle
    return check.job("engines", trt=True, bundle=bundle, precision=precision, batch=batch, **shapes)


def code(run: Run, check: Check) -> Facts:
    """Codes pictures, and decodes what the reference coded."""
    about = _described(run, check)
    folder = _results(check)
    shutil.rmtree(folder / run.name, ignore_errors=True)
    pictures = check.options.sizes
    if check.options.images is not None:
        pictures = [str(path) for path in sorted(check.options.images.iterdir()) if path.is_file()]
    facts = check.job(
        "code", run.on_trt, run=about, pictures=pictures, quality=4.0, out=str(folder / run.name)
    )
    if run.name != REFERENCE and (folder / REFERENCE).is_dir():
        facts["decodes_reference"] = check.job("decode", run.on_trt, run=about, files=str(folder / REFERENCE))
    return facts


def compared(run: Run, check: Check) -> Facts:
    """Compares a run's files, latents, pixels and predictions with the reference's."""
    folder = _results(check)
    if run.name == REFERENCE:
        raise Skip("it is what the others are compared with")
    for name in (REFERENCE, run.name):
        if not (folder / name).is_dir():
            raise Skip(f"the step code-{name} has left nothing")
    decoded = check.job("decode", run=_described(_run(REFERENCE), check), files=str(folder / run.name))
    return {**compare(folder / REFERENCE, folder / run.name), "reference_decodes": decoded}


def latency(run: Run, check: Check) -> Facts:
    """Measures stages and throughput; on the processor only what shows that it works."""
    if run.name == REFERENCE:
        raise Skip("it is there to be compared with; its times on the processor say nothing here")
    about = _described(run, check)
    on_gpu = run.device == "cuda"
    sizes, repeats = (check.options.sizes, 10) if on_gpu else (check.options.sizes[:1], 3)
    out = check.work / f"latency-{run.name}.json"
    arguments = [
        *("latency", "--bundle", about["bundle"], "--backend", run.backend, "--device", run.device),
        *(
            "--precision",
            run.precision,
            "--size",
            ",".join(sizes),
            "--repeats",
            str(repeats),
            "--warmup",
            "3",
        ),
        *("--pipeline", check.options.pipeline if on_gpu else "2"),
        *("--batch", f"1,{MOST_AT_ONCE}" if on_gpu else "1"),
        *("-o", str(out), "--force"),
    ]
    if about.get("checkpoint"):
        arguments += ["--checkpoint", about["checkpoint"]]
    out.unlink(missing_ok=True)
    try:
        check.log(check.module(BENCH, *arguments, trt=run.on_trt))
    except Failure as error:
        raise Failure(str(error), json.loads(out.read_text()) if out.is_file() else None) from None
    found: Facts = json.loads(out.read_text())
    return found


def attention(check: Check) -> Facts:
    """Measures the attention's kernels beside others."""
    need_gpu()
    need_torch(check)
    out = check.work / "attention.json"
    check.log(check.python(HERE / "attention_gpu.py", "--out", out))
    found: Facts = json.loads(out.read_text())
    return found


def accuracy(run: Run, check: Check) -> Facts:
    """Measures a task's accuracy, and its agreement with the reference's predictions."""
    options = check.options
    if options.accuracy is None or options.task is None:
        raise Skip("no labelled pictures (--accuracy and --task)")
    about = _described(run, check)
    out, reference = (check.work / f"accuracy-{name}.json" for name in (run.name, REFERENCE))
    arguments = [
        *("accuracy", str(options.accuracy), "--task", options.task, "--limit", str(options.limit)),
        *("--bundle", about["bundle"], "--backend", run.backend, "--device", run.device),
        *("--precision", run.precision, "--qualities", "1,4,8", "-o", str(out), "--force"),
    ]
    if about.get("checkpoint"):
        arguments += ["--checkpoint", about["checkpoint"]]
    elif reference.is_file():
        arguments += ["--agreement-with", str(reference)]
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


def _run(name: str) -> Run:
    return next(run for run in RUNS if run.name == name)


def _results(check: Check) -> Path:
    return check.work / "results"
