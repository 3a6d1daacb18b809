"""Steps of `gpu_check.py` that find out what the machine is, and build and lay out what the others run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from gpu_check import REPOSITORY, Check, Facts, Failure, Skip
from gpu_needs import (
    environment_of,
    first_line,
    last_line,
    need_gpu,
    need_trt_python,
    nvcc,
    stored_in,
    tensorrt_version,
)

BUILD_NEEDS = ("scikit_build_core", "nanobind")
PARTS = {
    "native coder": "a C++ compiler",
    "native operators": "a C++ compiler",
    "CUDA operators": "nvcc",
}
"""Native parts that a build must give where it finds what they need."""

_OFFLINE = (
    "--quiet",
    "--no-index",
    "--no-deps",
    "--no-build-isolation",
    "--upgrade",
    "--root-user-action=ignore",
)


def machine(check: Check) -> Facts:
    """What machine this is: GPU, driver, compilers, Pythons."""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm"
    compiler = nvcc()
    return {
        "gpu": first_line(["nvidia-smi", query, "--format=csv,noheader"]),
        "nvcc": compiler and last_line([compiler, "--version"]),
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


def build(check: Check) -> Facts:
    """Builds and installs the project, with kernels for this GPU, beside the packages that are there."""
    if check.options.installed:
        raise Skip("--installed: the polc that is there is measured")
    missing = [name for name in BUILD_NEEDS if importlib.util.find_spec(name) is None]
    if shutil.which("cmake") is None:
        missing.append("cmake")
    if missing:
        raise Skip(f"{', '.join(missing)} not installed")
    compiler = nvcc()
    variables = {} if compiler is None else {"CUDACXX": compiler}
    headers = check.options.pack and check.options.pack / "tensorrt"
    if headers and any(headers.glob("*.h")):
        variables["TENSORRT_INCLUDE_DIR"] = str(headers)
    options: list[str | Path] = ["--target", check.site, *_for_this_gpu(), REPOSITORY]
    check.python("-m", "pip", "install", *_OFFLINE, *options, **variables)
    libraries = environment_of(check)["libraries"]
    absent = [
        f"{part} ({found['detail']})"
        for part, found in libraries.items()
        if part in PARTS and not found["available"] and (part != "CUDA operators" or compiler)
    ]
    if absent:
        raise Failure(f"built without {', '.join(absent)}", {"libraries": libraries})
    return {"variables": variables, "libraries": libraries}


def _for_this_gpu() -> list[str]:
    """Options of pip that compile the kernels for this GPU alone, in a good half of the time."""
    capability = first_line(["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"])
    if capability is None:
        return []
    return ["-C", f"cmake.define.POLC_CUDA_ARCHITECTURES={capability.replace('.', '')}-real"]


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
    facts = {"tensorrt": tensorrt_version(check), "carried": [path.name for path in (*coder, *plugins)]}
    found = environment_of(check, trt=True)["libraries"]["native coder"]
    if not found["available"]:
        raise Failure(
            f"without the native coder files take minutes; gpu_pack.sh brings it ({found['detail']})", facts
        )
    return facts


def bundle(check: Check) -> Facts:
    """Adds the float16 graphs and TensorRT's files to a bundle that lacks them."""
    need_gpu()
    there = stored_in(check)
    if "fp16" in there["precisions"] and "tensorrt" in there["formats"]:
        raise Skip("the bundle holds fp16 graphs and TensorRT's files already")
    out = check.extended
    out.parent.mkdir(exist_ok=True)
    try:
        check.job("extend", bundle=check.options.bundle, out=str(out))
    except Failure as error:
        if "not installed" in str(error):
            raise Skip(str(error)) from None
        raise
    check.options.bundle = str(out)
    return stored_in(check)


def environment(check: Check) -> Facts:
    """What polc finds here, in both Pythons."""
    trt = environment_of(check, trt=True) if check.trt_site.is_dir() else None
    return {"python": environment_of(check), "trt_python": trt}
