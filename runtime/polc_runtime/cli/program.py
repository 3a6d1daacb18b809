"""How a command line of this project runs: errors as one line each, exit codes, plain warnings."""

from __future__ import annotations

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

from ..errors import CodecMismatchWarning, PolcError
from ..files import explain
from ..limits import Limits
from .console import fail, name_program, say

USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143
HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Context settings of every command."""


def run_program(command: click.Command, program: str, arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        command: what to run.
        program: its name.
        arguments: by default those of the process.

    Returns:
        The exit code: the command's own, 2 for an error of the user's (told on stderr in one line each), 130
        for an interrupt, 143 for SIGTERM. Both end the program in an orderly way: files are whole or not
        there, and nothing else is left.
    """
    name_program(program)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _plain_warnings(), _orderly_termination():
            return command.main(arguments or ["--help"], prog_name=program, standalone_mode=False) or 0
    except click.Abort:
        say("interrupted")
        return INTERRUPTED
    except _Terminated:
        say("terminated")
        return TERMINATED
    except click.ClickException as error:
        fail(_with_hint(error))
    except PolcError as error:
        fail(str(error))
    except OSError as error:
        fail(str(explain(error)))
    return USER_ERROR


class CommandTable(click.Group):
    """A group whose commands are imported when they are asked for.

    Args:
        table: name of a command -> "module:attribute", in the order that help lists them.
    """

    def __init__(self, table: Mapping[str, str], **options: Any) -> None:
        super().__init__(**options)
        self.table = table

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


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _orderly_termination() -> Iterator[None]:
    """Has SIGTERM end the program as an interrupt does; the second one kills it."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Prints this project's warnings as lines, without their place in the code, and no other package's."""

    def show(message: Warning | str, *where: object) -> None:
        say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CodecMismatchWarning)
        yield


def _with_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    message = error.format_message()
    return f"{message} (see '{context.command_path} --help')" if context else message


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from .. import __version__

        click.echo(f"{context.find_root().info_name} {__version__}")
        context.exit()
