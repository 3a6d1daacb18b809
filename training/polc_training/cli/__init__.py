"""`polc-train`: one command a stage."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

import click

from polc_runtime.cli.program import HELP, run_program, version_option

EXAMPLES = """\b
Examples:
  polc-train stage1 -d photos/ --preset polc-nano --perceptual none --init pca
  polc-train stage1-gan -d photos/ --pretrained checkpoints/stage1/best.safetensors
  polc-train stage2-cls -d imagenet/ --pretrained checkpoints/stage1-gan/best.safetensors \\
    --family convnext_tiny
  polc-train stage2-seg --help
"""


COMMANDS = {
    "stage1": "stage1:stage1",
    "stage1-gan": "stage1:stage1_gan",
    "stage2-cls": "stage2:stage2_cls",
    "stage2-seg": "stage2:stage2_seg",
    "pixels-cls": "pixels:pixels_cls",
    "pixels-seg": "pixels:pixels_seg",
}
"""Name of a command -> "module:attribute" below this package."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the stages' order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
        return command


@click.group(cls=LazyGroup, context_settings=HELP, epilog=EXAMPLES)
@version_option()
def program() -> None:
    """Train codecs and adapters: from folders of images to checkpoints that polc-export reads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `polc-train`; the exit code."""
    return run_program(program, "polc-train", arguments)
