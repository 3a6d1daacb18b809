"""What the measuring commands share: options, progress, and outputs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ...files.outputs import Target
from ...trace import Progress
from ..console import bar_wanted, fail, say
from ..options import Decorator

if TYPE_CHECKING:
    from ...pictures.listing import LeftOut


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


def check_outputs(paths: Collection[Path | None], force: bool) -> None:
    """Checks before a measurement that its outputs can be written.

    Raises:
        UsageError: a file exists, or two outputs are one file.
    """
    wanted = [path for path in paths if path is not None]
    if len(set(wanted)) < len(wanted):
        raise UsageError("two outputs have one name; give each its own")
    for path in wanted:
        Target(path, make_folders=True).check(force)


def write(path: Path | None, data: bytes, force: bool) -> None:
    """Writes an output, and the folders it lies in; nothing where it is not wanted."""
    if path is not None:
        Target(path, make_folders=True).write(data, force)


def json_text(document: object) -> str:
    """A JSON document as the commands print and write it."""
    return json.dumps(document, indent=2, allow_nan=False)


def finish(left_out: Iterable[LeftOut]) -> int:
    """Prints a line for each image that was left out; returns the exit code."""
    code = 0
    for each in left_out:
        fail(f"{each.image}: {each.error}{f' ({each.codec})' if each.codec else ''}")
        code = 2
    return code


csv_option = click.option(
    "--csv", metavar="FILE", type=click.Path(path_type=Path), help="Write the numbers as CSV."
)
document_option = click.option(
    "-o",
    "--output",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Write the JSON document to a file.",
)
plot_option = click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Draw the curves over the rate: .png, .svg or .pdf. Needs matplotlib.",
)


def checkpoint_option(what: str) -> Decorator:
    """The option `--checkpoint`, which names a file of `what`."""
    return click.option("--checkpoint", metavar="CKPT", type=click.Path(path_type=Path), help=what)
