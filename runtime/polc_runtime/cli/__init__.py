"""The `polc` command: images to `.polc` files and back, and looking into both."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .commands import COMMANDS
from .program import HELP, max_pixels_option, run_program, version_option


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc", arguments)


@click.group(commands=COMMANDS, context_settings=HELP)
@version_option()
@max_pixels_option()
def _group() -> None:
    """Compresses images with a learned codec whose files vision models can read.

    Every command takes --json for one JSON document on standard output, and '-' for standard input or output.
    Exit codes: 0, 2 for an error (one line each on standard error), 130 when interrupted,
    143 when terminated, 129 when the terminal was closed.
    """
