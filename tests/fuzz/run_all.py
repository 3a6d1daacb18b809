"""Fuzzes every target, a few at a time, and prints what was done as a table.

    python tests/fuzz/run_all.py --seconds 1800 --folder build/fuzz

Each target ends after the time, after ten million executions, or with a failure; its log, its corpus and
the failing input lie in the folder. `--table` only prints the table of what is there. Ends with 1 if a target
failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
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
SANITIZERS = ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]


def main() -> int:
    """Runs the targets and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="of processor time, a target")
    parser.add_argument("--runs", type=int, default=10_000_000, help="a target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "build" / "fuzz")
    parser.add_argument("--table", action="store_true")
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
    """Fuzzes one target into its log."""
    log = options.folder / f"{target}.log"
    command = native(options) if target == NATIVE else python(options, target)
    with log.open("w") as stream:
        if command is None:
            stream.write("skipped: there is no clang++\n")
            return
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(command, stdout=stream, stderr=stream, env=environment).returncode
        stream.write(f"\nexit code {code}\n")


def python(options: argparse.Namespace, target: str) -> list[str]:
    """The command of a target in Python."""
    arguments = [
        target,
        "--seconds",
        options.seconds,
        "--runs",
        options.runs,
        "--corpus",
        options.folder / "corpus",
    ]
    return [sys.executable, str(HERE / "run.py"), *map(str, arguments)]


def native(options: argparse.Namespace) -> list[str] | None:
    """The command of the native coder's target, which it builds; None without clang."""
    compiler = shutil.which(os.environ.get("CLANGXX", "clang++"))
    if compiler is None:
        return None
    program, corpus = options.folder / NATIVE, options.folder / "corpus" / NATIVE
    sources = ["-I", str(REPOSITORY / "runtime/csrc"), str(HERE / "rans_fuzzer.cc"), "-o", str(program)]
    subprocess.run([compiler, "-std=c++17", "-O1", "-g", *SANITIZERS, *sources], check=True)
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=1024", "-print_final_stats=1"]
    amount = [f"-max_total_time={2 * options.seconds}", f"-runs={options.runs}"]  # of wall-clock time
    return [str(program), *amount, *limits, f"-artifact_prefix={corpus}-", str(corpus)]


def row(log: Path) -> tuple[str, bool]:
    """A line of the table, and whether the target failed; empty without a log."""
    if not log.exists():
        return "", False
    text = log.read_text(errors="replace")
    found = {key: re.findall(pattern, text, re.MULTILINE) for key, pattern in _FACTS.items()}
    facts = {key: matches[-1] if matches else "?" for key, matches in found.items()}
    result = {"0": "no finding", "?": "not finished"}.get(facts["code"], "**failed**")
    if "no interesting inputs were found" in text:
        result = "**failed**: nothing guides it"
    if text.startswith("skipped"):
        result = text.strip()
    cells = [facts[key] for key in ("runs", "seconds", "branches", "kept")]
    line = f"| `{log.stem}` | {' | '.join(cells)} | {facts['peak']} MB | {result} |"
    return line, result.startswith("**failed**")


_FACTS = {
    "runs": r"(?:executions|stat::number_of_executed_units): (\d+)",
    "seconds": r"(?:^seconds:|Done \d+ runs in) (\d+)",
    "branches": r"^#.* cov: (\d+)",
    "kept": r"^#.* corp: (\d+)/",
    "peak": r"(?:^peak|stat::peak_rss_mb): +(\d+)",
    "code": r"exit code (-?\d+)",
}


if __name__ == "__main__":
    sys.exit(main())
