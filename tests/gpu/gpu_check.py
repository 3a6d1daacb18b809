"""Builds, tests and measures on a GPU machine, within a budget of time; leaves one JSON and one log.

Usage: tests/gpu/gpu_check.sh --out DIR [options]; run by the Python that has torch. Needs no network. What
a step needs and the machine lacks is named, and the step skipped. `gpu_check.json` is written again
after every step, so that a run that is cut off leaves what it had found. Exit code 1 if a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
FORMAT = 1
OK, FAILED, SKIPPED = "ok", "failed", "skipped"
RESERVE = 5.0
"""Seconds of the budget that are kept for ending well."""

Facts = dict[str, Any]


class Failure(Exception):
    """A step did not do what it should; the message is one line.

    Args:
        message: what went wrong.
        result: what the step found nevertheless.
    """

    def __init__(self, message: str, result: Facts | None = None) -> None:
        super().__init__(message)
        self.result = result


class Overtime(Failure):
    """A step took longer than it may."""


class Skip(Exception):
    """The machine lacks what a step needs; the message names it."""


@dataclass(frozen=True)
class Step:
    """A part of the check.

    Attributes:
        name: as the JSON and the options call it.
        run: does it, and gives what the JSON shows; raises Skip or Failure.
        seconds: after which it is stopped.
    """

    name: str
    run: Callable[[Check], Facts]
    seconds: float


@dataclass
class Check:
    """What the steps share: options, places, time, and what the others found.

    Attributes:
        options: of the command line.
        out: folder of the results.
        work: folder of what is built; may be one of an earlier run.
        began: when the budget started.
        deadline: of the step that runs.
        results: of the steps before, by name.
        known: what several steps ask for, and is found out once.
        variables: of the environment, for every program from here on: what turned out not to work is off.
    """

    options: argparse.Namespace
    out: Path
    work: Path
    began: float = field(default_factory=time.monotonic)
    deadline: float = 0.0
    results: dict[str, Facts] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds of the budget that are left for steps."""
        return self.options.budget - RESERVE - (time.monotonic() - self.began)

    @property
    def site(self) -> Path:
        """Where the project is installed for the main Python."""
        return self.work / "site"

    @property
    def trt_site(self) -> Path:
        """Where the torch-free packages lie for TensorRT's Python."""
        return self.work / "trt_site"

    @property
    def extended(self) -> Path:
        """Where the bundle lies with what the step `bundle` adds."""
        return self.work / "bundles" / Path(self.options.bundle).name

    def python(self, *arguments: str | Path, trt: bool = False, **variables: str) -> str:
        """Runs a Python, logs what it says, and gives its standard output.

        Raises:
            Failure: it failed, or the step's time is over.
        """
        interpreter = self.options.trt_python if trt else sys.executable
        folder = self.trt_site if trt else self.site
        path = [str(folder)] if folder.is_dir() else []
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "POLC_CACHE": str(self.work / "cache"),
            **self.variables,
            **variables,
        }
        return self.call([str(interpreter), *map(str, arguments)], environment)

    def without(self, variable: str, value: str, do: Callable[[], Facts]) -> Facts:
        """Does something once more with a variable set, which stays so for all later programs if that helps.

        Raises:
            Failure: it fails all the same.
        """
        self.variables[variable] = value
        try:
            return do()
        except BaseException:
            del self.variables[variable]
            raise

    def module(self, entry: str, *arguments: str | Path, trt: bool = False) -> str:
        """Runs a command line of the project, given as "module:function"."""
        module, function = entry.split(":")
        code = f"import sys; from {module} import {function} as main; sys.exit(main())"
        return self.python("-c", code, *arguments, trt=trt)

    def job(self, name: str, trt: bool = False, **arguments: Any) -> Facts:
        """Runs a job of `gpu_jobs.py`; what it prints."""
        found: Facts = json.loads(self.python(HERE / "gpu_jobs.py", name, json.dumps(arguments), trt=trt))
        return found

    def call(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        """Runs a program in the repository; its standard output. What goes to standard error is logged."""
        self.log(f"$ {' '.join(command)[:2000]}")
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace",
                cwd=REPOSITORY, env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                printed, _ = process.communicate(timeout=max(self.deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                printed, _ = process.communicate()
                self.log(printed)
                raise Overtime("stopped: it took longer than it may") from None
            finally:
                errors.seek(0)
                told = errors.read()
                self.log(told)
                if process.poll() is None:  # an interrupt
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if process.returncode:
            self.log(printed)
            lines = [line for line in (told + "\n" + printed).splitlines() if line.strip()]
            raise Failure(f"exit code {process.returncode}: {lines[-1] if lines else 'nothing printed'}")
        return printed

    def log(self, text: str) -> None:
        """Adds to the log."""
        with (self.out / "gpu_check.log").open("a") as file:
            file.write(f"{text.rstrip()}\n" if text.strip() else "")

    def write(self, done: bool) -> None:
        """Writes the JSON."""
        document = {
            "format": FORMAT,
            "complete": done,
            "budget_seconds": self.options.budget,
            "seconds": round(time.monotonic() - self.began, 2),
            "steps": self.results,
        }
        path = self.out / "gpu_check.json"
        path.with_suffix(".part").write_text(f"{json.dumps(document, indent=1)}\n")
        path.with_suffix(".part").replace(path)


def perform(check: Check, step: Step) -> Facts:
    """Does a step, if it is wanted and there is time; its entry in the JSON."""
    options = check.options
    if (options.only and step.name not in options.only) or step.name in options.skip:
        return {"status": SKIPPED, "reason": "not asked for", "seconds": 0.0}
    if check.left <= 0:
        return {"status": SKIPPED, "reason": f"the budget of {options.budget:g} s is spent", "seconds": 0.0}
    started = time.monotonic()
    check.deadline = started + min(step.seconds, check.left)
    check.log(f"\n== {step.name}")
    try:
        entry: Facts = {"status": OK, "result": step.run(check)}
    except Skip as reason:
        entry = {"status": SKIPPED, "reason": str(reason)}
    except Overtime as error:
        entry = failed(error)
        if step.seconds > check.deadline - started:
            entry |= {"status": SKIPPED, "reason": "cut off: the budget is spent"}
    except Exception as error:  # whatever it is, the steps after it are to be done
        entry = failed(error)
    return {**entry, "seconds": round(time.monotonic() - started, 2)}


def failed(error: Exception) -> Facts:
    """The entry of a step that went wrong."""
    if not isinstance(error, Failure):
        return {"status": FAILED, "reason": repr(error)}
    entry = {"status": FAILED, "reason": str(error)}
    return entry if error.result is None else {**entry, "result": error.result}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""

    def names(text: str) -> list[str]:
        return [name.strip() for name in text.split(",") if name.strip()]

    parser = argparse.ArgumentParser(prog="gpu_check.sh", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of gpu_check.json and gpu_check.log")
    add("--bundle", default="nano", help="bundle to measure (default: %(default)s)")
    add("--checkpoint", type=Path, help="its PyTorch weights (default: those of nano, for nano)")
    add("--trt-python", type=Path, metavar="PYTHON", help="a Python with tensorrt, if it is another one")
    add("--pack", type=Path, metavar="DIR", help="what gpu_pack.sh has collected")
    add(
        "--wheels",
        type=Path,
        metavar="DIR",
        help="wheels of packages that are missing (default: PACK/wheels)",
    )
    add("--installed", action="store_true", help="measure the polc that is installed; build nothing")
    add(
        "--work",
        type=Path,
        metavar="DIR",
        help="folder of what is built, kept (default: one that is removed)",
    )
    add("--images", type=Path, metavar="DIR", help="pictures to code (default: synthetic ones)")
    add(
        "--sizes",
        default="1920x1080,768x512",
        type=names,
        help="WxH,... to measure, the most important first (default: %(default)s)",
    )
    add("--pipeline", default="1,4,8", help="pictures under way at once (default: %(default)s)")
    add("--accuracy", type=Path, metavar="DIR", help="labelled pictures for polc-bench accuracy")
    add("--task", help="its task")
    add("--limit", type=int, default=100, help="pictures of it (default: %(default)s)")
    add("--budget", type=float, default=480.0, metavar="SECONDS", help="for all (default: %(default)s)")
    add("--only", type=names, default=[], metavar="STEP,...", help="do these steps alone")
    add("--skip", type=names, default=[], metavar="STEP,...", help="leave these out")
    add("--list", action="store_true", help="print the steps' names, and do nothing")
    return parser.parse_args(arguments)


def main() -> int:
    """Does all steps; the exit code."""
    from gpu_steps import steps

    options = parse()
    all_steps = steps(options)
    if options.list:
        print("\n".join(step.name for step in all_steps))
        return 0
    known = {step.name for step in all_steps}
    if unknown := [name for name in (*options.only, *options.skip) if name not in known]:
        sys.exit(f"gpu_check.sh: no step is named {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and the step's program with it
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_check.log").write_text("")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary) if options.work is None else options.work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        check = Check(options, options.out.resolve(), work)
        if check.extended.is_dir():  # an earlier run's
            options.bundle = str(check.extended)
        for step in all_steps:
            check.results[step.name] = entry = perform(check, step)
            line = f"{step.name}: {entry['status']}, {entry['seconds']:.1f} s"
            print(line + (f" ({entry['reason']})" if "reason" in entry else ""), flush=True)
            check.write(done=step is all_steps[-1])
    return int(any(entry["status"] == FAILED for entry in check.results.values()))


if __name__ == "__main__":
    sys.modules["gpu_check"] = sys.modules["__main__"]  # the steps use this module's classes
    sys.exit(main())
