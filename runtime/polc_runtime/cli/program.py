"""How a command line of this project runs: errors as one line each, exit codes, plain warnings."""

from __future__ import annotations

import errno
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from types import FrameType
from typing import Any

import click

from ..errors import FAILURES, CodecMismatchWarning, first_line
from ..limits import Limits
from .console import error_text, fail, prepare, say

USER_ERROR = 2
INTERRUPTED = 128 + signal.SIGINT
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Context settings of every command."""


def run_program(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        command: what to run.
        program: its name.
        arguments: by default those of the process.

    Returns:
        The exit code: the command's own, 2 for an error of the user's (one line each on stderr), 130 for an
        interrupt, 143 for SIGTERM, 129 for SIGHUP. These three end the program in an orderly way: files are
        whole or not there, and nothing else is left.
    """
    prepare(program)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    ends: list[int] = []
    try:
        with _plain_warnings(), _orderly_ends(ends):
            return command.main(arguments or ["--help"], prog_name=program, standalone_mode=False) or 0
    except click.Abort:
        ends.append(signal.SIGINT)
    except (*FAILURES, ImportError, click.ClickException, SystemExit, _Ended) as error:
        if not ends:
            fail(_one_line(error))
            return USER_ERROR
    # Whatever the error was: code that a signal interrupts may raise another in its place, as imports do.
    say(_ENDS[ends[0]])
    return 128 + ends[0]


class CommandTable(click.Group):
    """A group whose commands are imported when they are asked for.

    Args:
        table: name of a command -> "module:attribute", in the order that help lists them.
        summaries: name of a command -> its line in the group's help, which then imports no command.
    """

    def __init__(
        self, table: Mapping[str, str], summaries: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.table = table
        self.summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them; None where there is none of that name."""
        if cmd_name not in self.table:
            return None
        module, attribute = self.table[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands into the help."""
        if self.summaries is None:
            super().format_commands(ctx, formatter)
            return
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


def version_option() -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The option `--version`."""
    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version.",
    )


def max_pixels_option() -> Callable[[Callable[..., object]], Callable[..., object]]:
    """The option `--max-pixels`."""
    return click.option(
        "--max-pixels",
        metavar="N",
        type=click.IntRange(min=1),
        expose_value=False,
        callback=_limit_pixels,
        help="Refuse images of more pixels. Default: $POLC_MAX_PIXELS, else 268435456.",
    )


def current_limits() -> Limits:
    """The limits of this run: the environment's, and `--max-pixels`."""
    context = click.get_current_context(silent=True)
    found = context.find_object(Limits) if context else None
    return found or Limits.from_environment()


def _limit_pixels(context: click.Context, parameter: click.Parameter, most: int | None) -> None:
    if most is not None:
        context.obj = replace(Limits.from_environment(), max_pixels=most)


class _Ended(BaseException):
    """A signal came that ends the program."""


_ENDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):
    _ENDS[signal.SIGHUP] = "its terminal was closed"


@contextmanager
def _orderly_ends(came: list[int]) -> Iterator[None]:
    """Makes the signals of `_ENDS` raise an exception, and adds each that arrives to `came`.

    Signals that are ignored or handled by others stay so. A second SIGTERM or SIGHUP kills the program.
    """

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        raise _Ended

    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.getsignal(number) for number in _ENDS}
    taken = [number for number, handler in before.items() if handler in usual]
    if threading.current_thread() is not threading.main_thread():
        taken = []
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints this project's warnings as lines, without their place in the code; hides other packages'."""

    def show(message: Warning | str, *where: object) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CodecMismatchWarning)
        yield


def _one_line(error: BaseException) -> str:
    """The message of an error."""
    if isinstance(error, SystemExit):  # click's answer to a pipe without a reader
        error = BrokenPipeError(errno.EPIPE, "", "standard output")
    if isinstance(error, click.ClickException):
        return _with_hint(error)
    if isinstance(error, ImportError):
        return f"a part of the installation cannot be loaded: {first_line(error)}"
    return error_text(error)


def _with_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    return f"{message} (see '{context.command_path} --help')" if context else message


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        click.echo(f"{context.find_root().info_name} {__version__}")
        context.exit()
