"""The `polc-bench` command; each sub-command is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..program import HELP, CommandTable, run_program, version_option

COMMANDS = {
    "rd": "polc_runtime.cli.bench.rd:rd",
    "accuracy": "polc_runtime.cli.bench.accuracy:accuracy",
    "latency": "polc_runtime.cli.bench.latency:latency",
    "agreement": "polc_runtime.cli.bench.agreement:agreement",
    "env": "polc_runtime.cli.bench.env:env",
}
"""Sub-commands: name -> "module:attribute"."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc-bench` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc-bench", arguments)


@click.command(cls=CommandTable, table=COMMANDS, context_settings=HELP)
@version_option()
def _group() -> None:
    """Measures a bundle: rate, distortion, accuracy and time of real files, decoded for real.

    Every command takes --json for one JSON document on standard output. Images that cannot be used are left
    out and listed. Exit codes: 0, 2 for an error or an image left out (one line each on standard error), 130
    when interrupted.
    """
