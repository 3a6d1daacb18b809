"""What the measuring commands share: options, progress, and outputs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from ...errors import UsageError
from ...files.outputs import Target
from ...trace import Progress
from ..console import bar_wanted, fail, in_options, say
from ..options import Decorator, Reporting, force, grouped


def numbers(value: str) -> tuple[float, ...]:
    """Finite numbers out of a list with commas.

    Raises:
        UsageError: it is not such a list.
    """
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise UsageError(f"expected numbers with commas between them, such as 1,4,8; got {value!r}")
    return found


def number_list(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Splits a list of numbers with commas; None where the option is not given."""
    return None if value is None else numbers(value)


def words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Splits a list of words with commas; None where the option is not given."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


class ShownProgress:
    """Shows the reports of a measurement: as a progress bar, or with `verbose` a line each.

    Args:
        label: of the bar.
        verbose: print the reports' messages.
    """

    def __init__(self, label: str, verbose: bool) -> None:
        self.label, self.verbose = label, verbose
        self._bar: Any = None
        self._done = 0

    def __call__(self, report: Progress) -> None:
        """Shows a report."""
        if self._bar is None and bar_wanted(report.total, self.verbose):
            self._bar = click.progressbar(
                length=report.total, label=self.label, file=sys.stderr, show_pos=True
            ).__enter__()
        for notice in report.notices:
            say(f"notice: {notice}", over_bar=self._bar is not None)
        if self.verbose and report.message:
            say(report.message)
        if self._bar is not None:
            self._bar.update(report.done - self._done)
        self._done = report.done

    def __enter__(self) -> ShownProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, value, trace)
        for each in getattr(value, "left_out", ()):  # of a measurement that had to leave out every image
            fail(in_options(str(each)))


@dataclass(frozen=True)
class Outputs:
    """Files to write results to, each only if it is named."""

    force: bool
    output: Path | None = None
    csv: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Checks before a measurement that every file can be written.

        Raises:
            UsageError: a file exists, two outputs are one file, or a plot has an unknown suffix.
            BackendUnavailable: matplotlib is not installed.
        """
        wanted = [path for path in (self.output, self.csv, self.plot) if path is not None]
        if len(set(wanted)) < len(wanted):
            raise UsageError("two outputs have one name; give each its own")
        for path in wanted:
            check_free(path, self.force)
        if self.plot is not None:
            from ...bench.plot import check_plot

            check_plot(self.plot)


def conclude(
    document: dict[str, Any],
    text: str,
    outputs: Outputs,
    reporting: Reporting,
    failed: Sequence[object],
    table: bytes = b"",
) -> int:
    """Writes and prints what was measured.

    Args:
        document: the result.
        text: the result for people.
        outputs: where to write it.
        reporting: how to print it.
        failed: what was left out, and why; a line each.
        table: the result as CSV.

    Returns:
        The exit code.
    """
    if outputs.output is not None:
        write(outputs.output, f"{json_text(document)}\n".encode(), outputs.force)
    if outputs.csv is not None:
        write(outputs.csv, table, outputs.force)
    click.echo(json_text(document) if reporting.as_json else text)
    for each in failed:
        fail(in_options(str(each)))
    return 2 if failed else 0


def check_free(path: Path, force: bool) -> None:
    """Raises UsageError if a file exists and `force` is not given."""
    Target(path, make_folders=True, force=force).check()


def write(path: Path, data: bytes, force: bool) -> None:
    """Writes a file, and the folders it lies in."""
    Target(path, make_folders=True, force=force).write(data)


def json_text(document: object) -> str:
    """A JSON document as the commands print and write it."""
    return json.dumps(document, indent=2, allow_nan=False)


def outputs(*names: str) -> Decorator:
    """The options of `Outputs` that a command has, and `--force`."""
    return grouped("outputs", Outputs, {"force": force, **{name: _OUTPUTS[name] for name in names}})


_OUTPUTS = {
    "output": click.option(
        "-o",
        "--output",
        metavar="FILE.json",
        type=click.Path(path_type=Path),
        help="Write the JSON document to a file.",
    ),
    "csv": click.option(
        "--csv", metavar="FILE", type=click.Path(path_type=Path), help="Write the numbers as CSV."
    ),
    "plot": click.option(
        "--plot",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Draw the curves over the rate: .png, .svg or .pdf. Needs matplotlib.",
    ),
}


def checkpoint_option(what: str) -> Decorator:
    """The option `--checkpoint`, which names a file of `what`."""
    return click.option("--checkpoint", metavar="CKPT", type=click.Path(path_type=Path), help=what)
