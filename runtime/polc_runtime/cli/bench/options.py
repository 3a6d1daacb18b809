"""Options that the measurements share."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import click

from ...errors import UsageError
from ...files.outputs import Target
from ..options import Decorator


def numbers(value: str) -> tuple[float, ...]:
    """Finite numbers out of a list with commas.

    Raises:
        UsageError: it is no such list.
    """
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        raise UsageError(f"expected numbers with commas between them, such as 1,4,8; got {value!r}")
    return found


def words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Splits a list of words with commas; None where the option is not given."""
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def outputs(paths: Collection[Path | None], force: bool) -> None:
    """Finds out, before anything is measured, whether what is asked for can be written.

    Raises:
        UsageError: a file is there already, or two outputs are one file.
    """
    wanted = [path for path in paths if path is not None]
    if len(set(wanted)) < len(wanted):
        raise UsageError("two outputs have one name; give each its own")
    for path in wanted:
        Target(path, make_folders=True, force=force).check()


def write(path: Path, data: bytes, force: bool) -> None:
    """Writes an output, and the folders it lies in."""
    Target(path, make_folders=True, force=force).write(data)


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


def plot_of(what: str) -> Decorator:
    """The option `--plot`, which draws `what`."""
    return click.option(
        "--plot",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=f"Draw {what}: .png, .svg or .pdf. Needs matplotlib.",
    )


def checkpoint_option(what: str) -> Decorator:
    """The option `--checkpoint`, which names a file of `what`."""
    return click.option("--checkpoint", metavar="CKPT", type=click.Path(path_type=Path), help=what)


plot_option = plot_of("the curves over the rate")
