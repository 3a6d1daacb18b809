"""What the steps of `gpu_check.py` need: found out once, and a reason to skip where it is missing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache

from gpu_check import Check, Facts, Failure, Skip

BENCH = "polc_runtime.cli.bench:main"
CUDA_BIN = "/usr/local/cuda/bin"
TORCH_NEEDS = ("torch", "compressai", "safetensors")


def environment_of(check: Check, trt: bool = False) -> Facts:
    """What `polc-bench env` finds; once for each Python, after the build."""
    key = "environment of trt_python" if trt else "environment"
    if key not in check.known:
        check.known[key] = json.loads(check.module(BENCH, "env", "--json", trt=trt))
    found: Facts = check.known[key]
    return found


def stored_in(check: Check) -> Facts:
    """Precisions and formats of the bundle that is measured."""
    key = f"bundle {check.options.bundle}"
    if key not in check.known:
        check.known[key] = check.job("about", bundle=check.options.bundle)
    found: Facts = check.known[key]
    return found


def need_graphs(check: Check, precision: str, backend: str) -> None:
    """Skips what the bundle has no files for; torch runs none of them."""
    bundle = stored_in(check)
    if precision not in bundle["precisions"] and backend != "torch":
        raise Skip(f"the bundle has no {precision} graphs (polc-export --precision {precision})")
    if backend in ("tensorrt", "torchscript") and backend not in bundle["formats"]:
        raise Skip(f"the bundle has no {backend} files (polc-export --format {backend})")


def nvcc() -> str | None:
    """CUDA's compiler: in the PATH, or where its installer puts it."""
    return shutil.which("nvcc") or shutil.which("nvcc", path=CUDA_BIN)


def need_gpu() -> None:
    """Skips where there is no GPU."""
    if not gpu():
        raise Skip("no GPU (nvidia-smi finds none)")


@cache
def gpu() -> str | None:
    """The GPUs that nvidia-smi lists; None for none."""
    return first_line(["nvidia-smi", "-L"])


def need_torch(check: Check) -> None:
    """Skips where PyTorch, or what the model in it needs, cannot be imported."""
    if "torch" not in check.known:
        try:
            check.python("-c", "; ".join(f"import {name}" for name in TORCH_NEEDS))
            check.known["torch"] = ""
        except Failure as error:
            missing = re.search(r"No module named '([^']+)'", str(error))
            check.known["torch"] = f"{missing[1]} is not installed" if missing else str(error)
    if check.known["torch"]:
        raise Skip(check.known["torch"])


def need_trt_python(check: Check) -> None:
    """Skips where TensorRT's Python is not named or not there."""
    python = check.options.trt_python
    if python is None:
        raise Skip("no Python with tensorrt is named (--trt-python)")
    if not python.is_file():
        raise Skip(f"{python} is not there")


def tensorrt_version(check: Check) -> str:
    """The version of TensorRT in its Python; skips where that has none."""
    try:
        return check.python("-c", "import tensorrt; print(tensorrt.__version__)", trt=True).split()[-1]
    except Failure as error:
        if "No module named" in str(error):
            raise Skip(f"{check.options.trt_python} has no tensorrt") from None
        raise


def first_line(command: Sequence[str]) -> str | None:
    """The first line that a program prints; None where it is missing or fails."""
    return _line(command, 0)


def last_line(command: Sequence[str]) -> str | None:
    """The last one, likewise."""
    return _line(command, -1)


def _line(command: Sequence[str], index: int) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()
    return lines[index].strip() if done.returncode == 0 and lines else None
