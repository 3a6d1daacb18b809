"""One loop for every command: work on each input, go on past bad ones, report, and give the exit code."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import PolcError
from ..files import STANDARD, Job, explain
from .console import bar_wanted, fail, printable, progress, say
from .options import Reporting

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

FAILURES = (PolcError, OSError, MemoryError)


def run(
    command: str,
    jobs: Sequence[Job],
    work: Work,
    reporting: Reporting,
    show: Callable[[Facts], str] | None = None,
    about: Facts | None = None,
) -> int:
    """Does `work` for every job; one that fails does not stop the others.

    Notices and warnings are printed as they come, errors at the end, one line for each input that failed.

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
    with progress(jobs, command, with_bar) as items:
        for job in items:
            result = _attempt(job, work)
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


def _attempt(job: Job, work: Work) -> Facts:
    result: Facts = {"input": STANDARD if job.source.path is None else str(job.source.path)}
    if job.target is not None:
        result["output"] = job.target.name
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            result |= {"ok": True, **work(job)}
        except FAILURES as error:
            result |= {"ok": False, "error": _about(job, error)}
    result["warnings"] = [str(warning.message) for warning in caught]
    result["seconds"] = round(time.perf_counter() - started, 4)
    return result


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
