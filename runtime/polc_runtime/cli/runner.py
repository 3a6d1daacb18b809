"""One loop for every command: work on each input, go on past bad ones, report, and give the exit code."""

from __future__ import annotations

import json
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from textwrap import indent
from typing import Any, NamedTuple

import click

from ..bitstream.container import Header
from ..errors import FAILURES, error_kind, first_line
from ..files.inputs import STANDARD, explain
from ..files.outputs import Job
from ..limits import Limits
from ..trace import listening
from ..workers import WAIT, Outcome, in_order, reading
from .console import bar_wanted, error_text, fail, progress, say
from .options import Reporting

AT_ONCE = 2
"""Jobs under way at once, and so the most images in memory, however many there are to do."""

Facts = dict[str, Any]

Work = Callable[[Job], Facts]
"""Does one job; returns what `--json` shows of it. A list of sentences under `notices` is printed as well."""

_SUMMARY = {
    "width": "{width}x{height}",
    "quality": "quality {quality:.6g}",
    "bytes": "{bytes} bytes",
    "bpp": "{bpp:.4f} bpp",
    "seconds": "{seconds:.2f} s",
}

_warnings: ContextVar[list[str] | None] = ContextVar("warnings", default=None)
"""Where the warnings of this thread's job go."""


def run(
    command: str,
    jobs: Sequence[Job],
    work: Work,
    reporting: Reporting,
    show: Callable[[Facts], str] | None = None,
    about: Facts | None = None,
    stop: Callable[[], None] | None = None,
) -> int:
    """Does `work` for every job, `AT_ONCE` at a time; one that fails does not stop the others.

    Notices, warnings and errors are printed as soon as it is a job's turn, in the order of the jobs. A single
    job is done on the calling thread. A result's `seconds` are its job's own, from the check of its output to
    its last file: without the time it waited for another job's networks, but slowed down by what runs beside
    it, so that they can add up to more than the whole run took.

    Args:
        command: its name, for the progress bar and the JSON document.
        jobs: what to do.
        work: does one of them; any exception is that job's result.
        reporting: what to print.
        show: gives the text on standard output for a result that is fine, unless JSON goes there.
        about: what the JSON document says of the run as a whole.
        stop: makes `work` end early on other threads, after an interrupt.

    Returns:
        The exit code: 0, or 2 if a job failed.
    """
    prints_lines = reporting.verbose or (show is not None and not reporting.as_json)
    with_bar = bar_wanted(len(jobs), prints_lines)
    do = partial(_attempt, work)
    outcomes = in_order(jobs, do, AT_ONCE, stop) if len(jobs) > 1 else _in_place(jobs, do)
    failed = 0
    with (
        _warnings_kept_by_job(),
        closing(outcomes),
        _document({"command": command, **(about or {})}, reporting.as_json) as add,
        progress(jobs, command, with_bar) as items,
    ):
        for job, outcome in zip(items, outcomes, strict=True):
            result, trace = outcome.result()
            for message in _messages(job, result, reporting.verbose):
                say(message, over_bar=with_bar)
            if not result["ok"]:
                failed += 1
                fail(result["error"], over_bar=with_bar)
            if trace and reporting.verbose:
                click.echo(trace, err=True)
            add(result)
            if show and result["ok"] and not reporting.as_json:
                click.echo(show(result))
    return 2 if failed else 0


class _Attempt(NamedTuple):
    """A job's result; and where its error came from, if that is none of `FAILURES`.

    As text: an exception would keep the images of its frames in memory.
    """

    result: Facts
    trace: str


def _in_place(jobs: Sequence[Job], do: Callable[[Job], _Attempt]) -> Generator[Outcome[_Attempt], None, None]:
    for index, job in enumerate(jobs):
        yield Outcome(index, do(job))


@contextmanager
def _document(about: Facts, wanted: bool) -> Iterator[Callable[[Facts], None]]:
    """One JSON document on standard output, written a result at a time; whole even after an interrupt.

    Args:
        about: what it begins with.
        wanted: whether there is to be one at all.

    Yields:
        Adds a result to the list `results`, which `failed` follows, the number of those that are not `ok`.
    """
    if not wanted:
        yield lambda result: None
        return
    results = failed = 0

    def add(result: Facts) -> None:
        nonlocal results, failed
        comma = "," if results else ""
        click.echo(f"{comma}\n{indent(json.dumps(result, indent=2), '    ')}", nl=False)
        results += 1
        failed += not result["ok"]

    click.echo(f'{json.dumps(about, indent=2)[:-2]},\n  "results": [', nl=False)
    try:
        yield add
    finally:
        click.echo(f'\n  ],\n  "failed": {failed}\n}}')


@contextmanager
def _warnings_kept_by_job() -> Iterator[None]:
    """Adds warnings to the list of the job that gives them: `warnings` itself knows no threads."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(message: Warning | str, *where: Any) -> None:
            kept = _warnings.get()
            if kept is None:
                show(message, *where)
            else:
                kept.append(str(message))

        warnings.showwarning = keep  # type: ignore[assignment]
        warnings.simplefilter("always", UserWarning)
        yield


class _WaitingTime:
    """A listener of `polc_runtime.trace` that adds up the seconds spent waiting for others' networks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, name: str) -> AbstractContextManager[None]:
        return self._wait() if name == WAIT else nullcontext()

    @contextmanager
    def _wait(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started


def _attempt(work: Work, job: Job) -> _Attempt:
    result: Facts = {"input": STANDARD if job.source.path is None else str(job.source.path)}
    if job.target is not None:
        result["output"] = job.target.name
    kept: list[str] = []
    waiting = _WaitingTime()
    trace = ""
    token = _warnings.set(kept)
    started = time.perf_counter()
    try:
        with listening(waiting):
            result |= {"ok": True, **work(job)}
    except FAILURES as error:
        kind = error_kind(explain(error) if isinstance(error, OSError) else error)
        result |= {"ok": False, "error": _about(job, error_text(error)), "kind": kind}
    except Exception as error:
        trace = traceback.format_exc()
        message = f"unexpected {type(error).__name__}: {first_line(error)} (-v shows where)"
        result |= {"ok": False, "error": _about(job, message), "kind": error_kind(error)}
    finally:
        _warnings.reset(token)
    seconds = time.perf_counter() - started - waiting.seconds
    return _Attempt(result | {"warnings": kept, "seconds": round(seconds, 4)}, trace)


def _about(job: Job, message: str) -> str:
    """The message, behind the input's name if it begins with neither that nor the output's."""
    names = [job.source.name, *([job.target.name] if job.target else [])]
    if message.startswith(tuple(f"{name}: " for name in names)):
        return message
    return f"{job.source.name}: {message}"


def read_input(job: Job, limits: Limits, limit: str = "max_bytes") -> bytes:
    """The bytes of a job's input; `limit` as `Source.read` has it."""
    with reading():
        return job.source.read(limits, limit)


def coded_facts(header: Header, size: int) -> Facts:
    """Size, quality and rate of a `.polc` file of `size` bytes."""
    return {
        "width": header.width,
        "height": header.height,
        "quality": header.quality,
        "bytes": size,
        "bpp": 8 * size / (header.width * header.height),
    }


def _messages(job: Job, result: Facts, verbose: bool) -> list[str]:
    name = job.source.name
    lines = [f"warning: {name}: {text}" for text in result["warnings"]]
    lines += [f"notice: {name}: {text}" for text in result.get("notices", ())]
    if verbose and result["ok"]:
        lines.append(_summary(name, result))
    return lines


def _summary(name: str, result: Facts) -> str:
    arrow = f" -> {result['output']}" if "output" in result else ""
    facts = [text.format(**result) for key, text in _SUMMARY.items() if key in result]
    return f"{name}{arrow}: {', '.join(facts)}"
