"""One loop for every command: work on each input, go on past bad ones, report, and give the exit code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import click

from ..errors import FAILURES
from ..files.inputs import STANDARD, explain
from ..files.outputs import Job
from .console import bar_wanted, fail, printable, progress, say
from .options import Reporting
from .overlap import Turn, in_order

Facts = dict[str, Any]

Work = Callable[[Job, Turn], Facts]
"""Does one job; returns what `--json` shows of it. A list of sentences under `notices` is printed as well.

Its networks run inside `Turn.networks`, and it writes by `Turn.write`: other jobs go on meanwhile.
"""

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
) -> int:
    """Does `work` for every job, successive ones overlapping; one that fails does not stop the others.

    What is told comes in the order of the jobs: notices and warnings as soon as it is a job's turn, errors at
    the end, one line for each input that failed. A result's `seconds` are its job's own, from the check of
    its output to its last file: without the time it waited for another job's networks, but slowed down by
    what runs beside it, so that they can add up to more than the whole run took.

    Args:
        command: its name, for the progress bar and the JSON document.
        jobs: what to do.
        work: does one of them; what it raises of `FAILURES` is that job's result.
        reporting: what to print.
        show: gives the text on standard output for a result that is fine, unless JSON goes there.
        about: what the JSON document says of the run as a whole.

    Returns:
        The exit code: 0, or 2 if a job failed.
    """
    prints_lines = reporting.verbose or (show is not None and not reporting.as_json)
    with_bar = bar_wanted(len(jobs), prints_lines)
    results = []
    outcomes = in_order(jobs, partial(_attempt, work))
    with _warnings_kept_by_job(), closing(outcomes), progress(jobs, command, with_bar) as items:
        for job, result in zip(items, outcomes, strict=True):
            results.append(result)
            for message in _messages(job, result, reporting.verbose):
                say(message, over_bar=with_bar)
            if show and result["ok"] and not reporting.as_json:
                click.echo(show(result))
    failed = [result for result in results if not result["ok"]]
    for result in failed:
        fail(result["error"])
    if reporting.as_json:
        document = {"command": command, **(about or {}), "failed": len(failed), "results": results}
        click.echo(json.dumps(document, indent=2))
    return 2 if failed else 0


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


def _attempt(work: Work, job: Job, turn: Turn) -> Facts:
    result: Facts = {"input": STANDARD if job.source.path is None else str(job.source.path)}
    if job.target is not None:
        result["output"] = job.target.name
    started = turn.clock()
    kept: list[str] = []
    token = _warnings.set(kept)
    try:
        result |= {"ok": True, **work(job, turn)}
    except FAILURES as error:
        result |= {"ok": False, "error": _about(job, error)}
    finally:
        _warnings.reset(token)
    return result | {"warnings": kept, "seconds": round(turn.clock() - started, 4)}


def _about(job: Job, error: Exception) -> str:
    """The error's message, behind the input's name if it names neither that nor the output."""
    message = str(explain(error) if isinstance(error, OSError) else error) or "not enough memory"
    names = [job.source.name, *([job.target.name] if job.target else [])]
    if message.startswith(tuple(f"{name}: " for name in names)):
        return message
    return f"{job.source.name}: {message}"


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


def table(facts: Facts) -> str:
    """Facts as indented lines of names and values."""
    width = max((len(key) for key in facts), default=0)
    return "\n".join(f"  {printable(key):{width}}  {printable(_text(value))}" for key, value in facts.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
