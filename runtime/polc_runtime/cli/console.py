"""What the commands say on standard error: one line a message, safe to print whatever a file is called."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import click

from ..files.inputs import explain

T = TypeVar("T")

_CLEAR_LINE = "\r\x1b[K"
_program = "polc"

_OPTIONS = {
    " or Limits(max_pixels=...)": " or polc --max-pixels",
    "portable=False": "--portable-bits off",
    "preprocess() scales": "polc compress --for-task scales",
}
"""What the command line has for parameters that its options do not simply repeat."""
_LIMIT = re.compile(r" or Limits\(\w+=\.\.\.\)")
_PARAMETER = re.compile(r"\b([a-z][a-z_]*)=(?:True|\.\.\.)(?!\w)")


def prepare(name: str) -> None:
    """Sets the name that every line on standard error begins with; once, when a process starts.

    From then on letters that the terminal's encoding lacks are printed as escapes.
    """
    global _program
    _program = name
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def error_text(error: BaseException) -> str:
    """An error's message for a command line: in its options, and for the system's errors in plain words."""
    message = str(explain(error) if isinstance(error, OSError) else error) or "not enough memory"
    return in_options(message)


def in_options(message: str) -> str:
    """A library's message with options in place of parameters: `--force` for `force=True`."""
    for parameter, option in _OPTIONS.items():
        message = message.replace(parameter, option)
    return _PARAMETER.sub(lambda found: f"--{found[1].replace('_', '-')}", _LIMIT.sub("", message))


def fail(message: str, over_bar: bool = False) -> None:
    """Prints an error line, see `say`."""
    say(f"error: {message}", over_bar)


def say(message: str, over_bar: bool = False) -> None:
    """Prints a line behind the program's name; `over_bar` clears the line of a progress bar first.

    Once standard error fails, nothing more is printed there, and the work goes on.
    """
    try:
        click.echo(f"{_CLEAR_LINE if over_bar else ''}{_program}: {printable(message)}", err=True)
    except OSError:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def printable(text: str) -> str:
    """The text with every line break, control character and undecodable byte written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def progress(items: Sequence[T], label: str, wanted: bool) -> Iterator[Iterable[T]]:
    """The items, behind a progress bar on standard error if it is `wanted`."""
    if not wanted:
        yield items
        return
    with click.progressbar(items, label=label, file=sys.stderr, show_pos=True) as bar:
        yield bar


def bar_wanted(count: int, prints_lines: bool) -> bool:
    """Whether `count` files get a progress bar: several, on a terminal, if no lines are printed."""
    return count > 1 and not prints_lines and sys.stderr.isatty()
