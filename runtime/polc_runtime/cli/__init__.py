"""The `polc` command: images to `.polc` files and back, and looking into both."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .program import HELP, CommandTable, max_pixels_option, run_program, version_option

COMMANDS = {
    "compress": "polc_runtime.cli.compress:compress",
    "decompress": "polc_runtime.cli.decompress:decompress",
    "infer": "polc_runtime.cli.infer:infer",
    "verify": "polc_runtime.cli.decompress:verify",
    "info": "polc_runtime.cli.info:info",
}
"""Sub-commands: name -> "module:attribute"."""

SUMMARIES = {
    "compress": "Compress images to .polc files.",
    "decompress": "Decompress .polc files to 8-bit RGB images.",
    "infer": "Predict from .polc files: run vision models on the decoded latent, without making the image.",
    "verify": "Check .polc files: decode every symbol and compare all checksums, without making the image.",
    "info": "Show what .polc files and bundles hold.",
}
"""The first sentence of each command's help, here too so that `polc --help` imports none of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc", arguments)


@click.command(cls=CommandTable, table=COMMANDS, summaries=SUMMARIES, context_settings=HELP)
@version_option()
@max_pixels_option()
def _group() -> None:
    """Compresses images with a learned codec whose files vision models can read.

    Every command takes --json for one JSON document on standard output, and '-' for standard input or output.
    Exit codes: 0, 2 for an error (one line each on standard error), 130 when interrupted,
    143 when terminated, 129 when the terminal was closed.
    """
