"""Fuzzes one target with atheris: coverage of the Python code guides what is tried.

    python tests/fuzz/run.py container --seconds 60

Ends with 0 after the processor time or the executions asked for, and otherwise at the first input that raises
what it may not, takes more than 2 s of processor time, or has the process grow by more than 1 GB; libFuzzer
writes that input to a file.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import atheris
from targets import TARGETS

PACKAGES = ("polc_runtime", "polc", "targets", "chunks")
MODULES = ("zipfile", "json.decoder", "json.scanner", "numpy.lib.format", "numpy.lib._format_impl",
           "torch._weights_only_unpickler")  # fmt: skip
"""What guides the fuzzer. Not numpy as a whole: that is slow, and atheris leaks the arrays it compares."""

MAX_SECONDS = 2.0
MAX_MEGABYTES = 1024
"""That inputs may take, on top of what the libraries take once they are imported."""
HANG_SECONDS = 300
"""Of wall-clock time, for what uses no processor; on a busy machine an input may wait long for one."""


class Bounded:
    """A target that raises where an input takes too much, and ends the process after enough inputs.

    Args:
        target: what to run.
        seconds: of processor time, after which there are enough.
        runs: executions, likewise.
    """

    def __init__(self, target: Callable[[bytes], None], seconds: int, runs: int) -> None:
        self.target, self.seconds, self.runs = target, seconds, runs
        self.most = peak_megabytes() + MAX_MEGABYTES
        self.done = 0
        self.began = time.process_time()

    def __call__(self, data: bytes) -> None:
        """Runs the target on an input."""
        started = time.process_time()
        self.target(data)
        ended = time.process_time()
        self.done += 1
        if ended - started > MAX_SECONDS:
            raise RuntimeError(f"took {ended - started:.1f} s")
        if (peak := peak_megabytes()) > self.most:
            raise MemoryError(f"the process has grown to {peak} MB, expected at most {self.most}")
        if self.done >= self.runs or ended - self.began >= self.seconds:
            print(f"executions: {self.done}\nseconds: {ended - self.began:.0f}\npeak: {peak}", flush=True)
            os._exit(0)  # libFuzzer has no other way to stop


def instrument() -> int:
    """Has the functions that are imported guide the fuzzer; how many there are.

    Not by atheris's import hook: of modules from an editable install it collects nothing.
    """
    found = [function for function in gc.get_objects() if isinstance(function, FunctionType)]
    mine = [function for function in found if _guides(str(function.__module__))]
    for function in mine:
        atheris.instrument_func(function)
    return len(mine)


def _guides(module: str) -> bool:
    return module in MODULES or module.partition(".")[0] in PACKAGES


def peak_megabytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Reads the options and starts; libFuzzer or `Bounded` ends the process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="of processor time")
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--corpus", type=Path, help="where seeds are and finds go; default: a fresh folder")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations")
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="polc-fuzz-"))
    if not (corpus / options.target).is_dir():
        import seeds

        seeds.write(corpus)
    for seed in sorted((corpus / options.target).glob("seed-*")):
        TARGETS[options.target](seed.read_bytes())  # imports what it needs
    print(f"functions that guide: {instrument()}", flush=True)
    target = Bounded(TARGETS[options.target], options.seconds, options.runs)
    atheris.Setup(
        [
            sys.argv[0],
            f"-seed={options.seed}",
            f"-timeout={HANG_SECONDS}",
            f"-rss_limit_mb={target.most}",
            "-max_len=20000",
            f"-artifact_prefix={corpus / options.target}-",
            str(corpus / options.target),
        ],
        target,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
