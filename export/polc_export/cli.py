"""The `polc-export` command: checkpoints to bundles, and checkpoints to checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from polc_runtime.cli.console import say
from polc_runtime.cli.program import HELP, run_program, version_option
from polc_runtime.errors import UsageError

FORMATS = ("onnx",)
DEFAULT_OPSET = 20
"""As `onnx_graph.DEFAULT_OPSET`, which costs seconds to import."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc-export` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc-export", arguments)


@click.group(
    invoke_without_command=True,
    context_settings=HELP,
    epilog="""\b
Examples:
  polc-export --stage1 polc.pth.tar
  polc-export --stage1 polc.pth.tar --out polc.bundle --photo holiday.jpg --force
  polc-export --stage1 model.safetensors --out model.bundle --json > report.json
  polc-export convert polc.pth.tar polc.safetensors""",
)
@click.option(
    "--stage1",
    metavar="CKPT",
    type=click.Path(path_type=Path),
    help="Checkpoint of the codec, in either layout.",
)
@click.option(
    "--out",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="The bundle's folder. Default: beside the checkpoint, CKPT's name with the suffix .bundle.",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    default=("onnx",),
    show_default=True,
    help="What to write; onnx is always written.",
)
@click.option("--name", help="What the bundle calls the model. Default: the checkpoint's file name.")
@click.option(
    "--opset",
    type=click.IntRange(18, 23),
    default=DEFAULT_OPSET,
    show_default=True,
    help="ONNX opset of the graphs.",
)
@click.option(
    "--photo",
    type=click.Path(path_type=Path),
    help="Image to validate on. Default: a portrait that matplotlib carries.",
)
@click.option("--no-validate", is_flag=True, help="Skip the comparison with PyTorch.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@version_option()
@click.pass_context
def _group(context: click.Context, **options: Any) -> int | None:
    """Export a checkpoint to a bundle: ONNX graphs, entropy tables and a manifest that any machine runs.

    Every graph is compared with PyTorch on a real photo, at several sizes and qualities; one line a check
    says what was measured. A bundle that misses a bound is not written. Exit codes: 0, 2 for an error, 130
    when interrupted.
    """
    if context.invoked_subcommand is not None:
        return None
    if options["stage1"] is None:
        raise UsageError("nothing to export: pass --stage1 CKPT")
    return _export(**options)


def _export(
    stage1: Path,
    out: Path | None,
    formats: tuple[str, ...],
    name: str | None,
    opset: int,
    photo: Path | None,
    no_validate: bool,
    force: bool,
    as_json: bool,
) -> int:
    from .export import ExportOptions, export_bundle

    def report(line: str) -> None:
        if not as_json and line.startswith(("ok ", "FAIL")):
            click.echo(line)
        else:
            say(line)

    started = time.perf_counter()
    result = export_bundle(stage1, out, ExportOptions(opset, not no_validate, photo, name, force), report)
    seconds = time.perf_counter() - started
    facts = result.bundle.describe()
    size = sum(graph["bytes"] for graph in facts["graphs"])
    if as_json:
        click.echo(json.dumps({"command": "export", "seconds": round(seconds, 2), **facts}, indent=2))
    else:
        checks = f"{len(result.checks)} checks passed" if result.checks else "not validated"
        graphs = f"{len(facts['graphs'])} graphs, {size / 1e6:.1f} MB"
        click.echo(f"{result.bundle.path}: {graphs}, {checks}, {seconds:.0f} s")
    return 0


@_group.command(
    epilog="""\b
Examples:
  polc-export convert polc.pth.tar polc.safetensors
  polc-export convert mine.safetensors theirs.pth.tar --official-layout"""
)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--official-layout", is_flag=True, help="Write the official key names, not this project's.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def convert(checkpoint: Path, out: Path, official_layout: bool, force: bool, as_json: bool) -> int:
    """Rewrite a checkpoint in this project's layout (.safetensors), or in the official one.

    OUT is a .safetensors file; with --official-layout it may also be a torch file such as .pth.tar.
    """
    from .convert import convert_checkpoint

    facts = convert_checkpoint(checkpoint, out, official_layout, force)
    if as_json:
        click.echo(json.dumps({"command": "convert", **facts}, indent=2))
    else:
        click.echo(f"{facts['output']}: {facts['parameters']:,} parameters, {facts['layout']} layout")
    return 0
