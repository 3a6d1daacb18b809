"""What attention costs in training: a step of a small codec with each kernel over the same without attention.

Usage: python training/benchmarks/training_step.py [--preset polc-nano] [--steps 7] [--threads 1]
Times are CPU time of the process where one thread is used, so that other load on the machine counts little;
each ratio is the median of those within a round. POLC_OPS_ISA=avx2 holds the native kernel to AVX2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from polc.attention import KERNELS, set_attention_kernel
from polc.attention.native import load
from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.presets import preset
from polc_runtime.backends.op_library import find_op_library
from polc_training.rate_distortion import RateDistortion
from polc_training.stages.stage1 import CodecStage

BATCH, PATCH = 4, 128


def without_attention(q: Any, k: Any, v: Any, rpb: Any, kernel_size: int, scale: float) -> Any:
    """Stands in for a kernel: the values themselves."""
    return v


def time_step(stage: CodecStage, image: torch.Tensor, clock: Callable[[], float]) -> float:
    """Seconds of one forward and backward pass."""
    for parameter in stage.parameters():
        parameter.grad = None
    start = clock()
    stage("codec", [image])["loss"].backward()
    return clock() - start


def main() -> None:
    """Prints one JSON document: the median of each kernel and of its ratio to the net without attention."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="polc-nano")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    codec = TinyLicCodec(preset(options.preset))
    stage = CodecStage(codec, RateDistortion.mse_only(codec.config.levels), stratified=True).train()
    image = torch.rand(BATCH, 3, PATCH, PATCH)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    KERNELS["none"] = without_attention
    left_out = {"reference", "auto", "cuda", *(["native"] if load().reason else [])}
    names = [name for name in KERNELS if name not in left_out]
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.steps + 1):
        for name in names:
            set_attention_kernel(codec, name)
            times[name].append(time_step(stage, image, clock))
    rows = {
        name: {
            "ms": 1e3 * statistics.median(found[1:]),
            "ratio": statistics.median(a / b for a, b in zip(found[1:], times["none"][1:], strict=True)),
        }
        for name, found in times.items()
    }
    facts = {"batch": BATCH, "patch": PATCH, "native_isa": find_op_library().isa}
    print(json.dumps({**facts, **vars(options), "kernels": rows}, indent=2))


if __name__ == "__main__":
    main()
