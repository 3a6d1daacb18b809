"""Fuzzes every target, a few at a time, and prints what was done as a table.

    python tests/fuzz/run_all.py --seconds 1800 --folder build/fuzz

Each target ends after the time, after ten million executions, or with a failure; its log, its corpus and
the failing input lie in the folder. Ends with 1 if a target failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
NATIVE = "rans_native"
TARGETS = (
    "checkpoint_pickle", "checkpoint_torch", "checkpoint_metadata", "checkpoint_header",
    "checkpoint_safetensors", "manifest", "bundle", "tables", "tables_arrays", NATIVE, "rans_binding",
    "rans_streams", "image", "container", "decode", "decode_parts",
)  # fmt: skip
CHUNK_SECONDS = 200
"""Of processor time, after which a target in Python goes on in a fresh process."""
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


def main() -> int:
    """Runs the targets and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of processor time, a target")
    parser.add_argument("--runs", type=int, default=10_000_000, help="a target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "fuzz")
    parser.add_argument("--resume", action="store_true", help="count what the folder's logs say was done")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target is named {unknown[0]}; there are {', '.join(TARGETS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        subprocess.run([sys.executable, str(HERE / "seeds.py"), str(options.folder / "corpus")], check=True)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(partial(run, options), options.targets or TARGETS))
    rows = [row(options.folder / f"{target}.log") for target in TARGETS]
    print("| target | executions | seconds | branches | inputs kept | peak memory | result |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(text for text, _ in rows if text))
    return int(any(failed for _, failed in rows))


def run(options: argparse.Namespace, target: str) -> None:
    """Fuzzes one target into its log, and says how it ended."""
    log = options.folder / f"{target}.log"
    if not options.resume:
        log.unlink(missing_ok=True)
    if remaining(options, log):
        fuzz(options, target, log)
    print(row(log)[0], file=sys.stderr, flush=True)


def fuzz(options: argparse.Namespace, target: str, log: Path) -> None:
    """Fuzzes one target until it has had enough, or fails."""
    if target != NATIVE:
        while (left := remaining(options, log)) and not python(options, target, *left, log):
            pass
    elif compiler := shutil.which(os.environ.get("CLANGXX", "clang++")):
        native(options, compiler, log)
    else:
        log.write_text("skipped: there is no clang++\n")


def remaining(options: argparse.Namespace, log: Path) -> tuple[int, int] | None:
    """Seconds and executions that a target still needs; None where it has had enough."""
    facts = read(log.read_text(errors="replace") if log.exists() else "")
    seconds, runs = options.seconds - (facts["seconds"] or 0), options.runs - (facts["runs"] or 0)
    return (seconds, runs) if min(seconds, runs) > 0 else None


def python(options: argparse.Namespace, target: str, seconds: int, runs: int, log: Path) -> int:
    """Goes on with a target in Python, in a process of its own; returns the exit code.

    A process ends after a while and the next goes on with the corpus, as atheris leaks.
    """
    chunk = log.read_text(errors="replace").count("exit code") if log.exists() else 0
    arguments = [target, "--seconds", min(seconds, CHUNK_SECONDS), "--runs", runs]
    arguments += ["--corpus", options.folder / "corpus", "--seed", chunk + 1]
    return logged([sys.executable, str(HERE / "run.py"), *map(str, arguments)], log)


def native(options: argparse.Namespace, compiler: str, log: Path) -> None:
    """Builds the native coder's target and fuzzes it."""
    program, corpus = options.folder / NATIVE, options.folder / "corpus" / NATIVE
    sources = ["-I", str(REPOSITORY / "runtime/csrc"), str(HERE / "rans_fuzzer.cc"), "-o", str(program)]
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=1024", "-print_final_stats=1"]
    amount = [f"-max_total_time={2 * options.seconds}", f"-runs={options.runs}"]  # of wall-clock time
    if logged([compiler, "-std=c++17", "-O1", "-g", *SANITIZERS, *sources], log) == 0:
        logged([str(program), *amount, *limits, f"-artifact_prefix={corpus}-", str(corpus)], log)


def logged(command: list[str], log: Path) -> int:
    """Runs a command, adds to the log what it prints and how it ends, and returns the exit code."""
    with log.open("a") as stream:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=stream, stderr=stream, env=environment).returncode
        stream.write(f"\nexit code {code}\n")
    return code


def read(text: str) -> dict[str, int | None]:
    """What a log says of its processes together; None where it says nothing."""
    found = {key: re.findall(pattern, text, re.MULTILINE) for key, (pattern, _) in _FACTS.items()}
    return {key: _FACTS[key][1](map(int, values)) if values else None for key, values in found.items()}


def row(log: Path) -> tuple[str, bool]:
    """A line of the table, and whether the target failed; empty without a log."""
    if not log.exists():
        return "", False
    text = log.read_text(errors="replace")
    facts = read(text)
    result = "**failed**" if facts["code"] else "no finding" if facts["runs"] else "not finished"
    if "no interesting inputs were found" in text:
        result = "**failed**: nothing guides it"
    if text.startswith("skipped"):
        result = text.strip()
    found = (facts[key] for key in ("runs", "seconds", "branches", "kept", "peak"))
    cells = ["?" if value is None else str(value) for value in found]
    line = f"| `{log.stem}` | {' | '.join(cells)} MB | {result} |"
    return line, result.startswith("**failed**")


def last(values: Iterable[int]) -> int:
    """The last of some values."""
    return list(values)[-1]


_FACTS: dict[str, tuple[str, Callable[[Iterable[int]], int]]] = {
    "runs": (r"(?:executions|stat::number_of_executed_units): (\d+)", sum),
    "seconds": (r"(?:^seconds:|Done \d+ runs in) (\d+)", sum),
    "branches": (r"^#.* cov: (\d+)", max),
    "kept": (r"^#.* corp: (\d+)/", last),
    "peak": (r"(?:^peak:|stat::peak_rss_mb:) +(\d+)", max),
    "code": (r"exit code -?(\d+)", max),
}
"""What a log says, and how to take what its processes say together."""


if __name__ == "__main__":
    sys.exit(main())
