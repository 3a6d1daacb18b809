"""`polc-train`: one command a stage."""

from __future__ import annotations

from collections.abc import Sequence

import click

from polc_runtime.cli.program import HELP, CommandTable, run_program, version_option

EXAMPLES = """\b
Examples:
  polc-train stage1 -d photos/ --preset polc-nano --perceptual none --init pca
  polc-train stage1-gan -d photos/ --pretrained checkpoints/stage1/best.safetensors
  polc-train stage2-cls -d imagenet/ --pretrained checkpoints/stage1-gan/best.safetensors \\
    --family convnext_tiny
  polc-train stage2-seg --help
"""


COMMANDS = {
    name: f"polc_training.cli.commands:{name.replace('-', '_')}"
    for name in ("stage1", "stage1-gan", "stage2-cls", "stage2-seg", "pixels-cls", "pixels-seg")
}
"""Commands: name -> "module:attribute"."""


@click.command(cls=CommandTable, table=COMMANDS, context_settings=HELP, epilog=EXAMPLES)
@version_option()
def program() -> None:
    """Train codecs and adapters: from folders of images to checkpoints that polc-export reads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `polc-train`; the exit code."""
    return run_program(program, "polc-train", arguments)
