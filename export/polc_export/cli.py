"""The `polc-export` command: checkpoints to bundles, and checkpoints to checkpoints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polc_runtime.cli.console import say
from polc_runtime.cli.program import HELP, run_program, version_option
from polc_runtime.errors import UsageError

from .onnx.opsets import DEFAULT_OPSET, OPSETS
from .tensorrt import EngineOptions, engine_options

if TYPE_CHECKING:
    from polc_runtime import Bundle

    from .export import ExportOptions
    from .formats import Variants
    from .validation.checks import Check, Report

    Made = tuple[Bundle, tuple[Check, ...]]

FORMATS = ("onnx", "torchscript", "tensorrt")
PRECISIONS = ("fp32", "fp16")
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})=(.+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc-export` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc-export", arguments)


def _named_paths(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str | None, Path], ...]:
    """Splits [NAME=]PATH; `./A=B` is a path that has an equals sign."""
    found = [_NAMED.fullmatch(value) for value in values]
    return tuple(
        (match[1], Path(match[2])) if match else (None, Path(value))
        for match, value in zip(found, values, strict=True)
    )


@click.group(
    invoke_without_command=True,
    context_settings=HELP,
    epilog="""\b
Examples:
  polc-export --stage1 polc.pth.tar
  polc-export --stage1 polc.pth.tar --out polc.bundle --photo holiday.jpg --force
  polc-export --stage1 model.safetensors --out model.bundle --json > report.json
  polc-export --stage1 model.safetensors --format torchscript
  polc-export --stage1 model.safetensors --precision fp16 --format tensorrt
  polc-export --bundle polc.bundle --precision fp16 --format tensorrt --force
  polc-export --stage2 convnext.pth.tar --stage2 scenes=pspnet.pth.tar --with-pixels
  polc-export --bundle polc.bundle --stage2 pets=deit.safetensors --labels pets.txt --force
  polc-export convert polc.pth.tar polc.safetensors""",
)
@click.option(
    "--stage1",
    metavar="CKPT",
    type=click.Path(path_type=Path),
    help="Checkpoint of the codec, in either layout.",
)
@click.option(
    "--stage2",
    metavar="[NAME=]CKPT",
    multiple=True,
    callback=_named_paths,
    help="Checkpoint of a task; its backbone must be the bundle's codec, and is it if there is no other. "
    "Repeatable. Default NAME: the checkpoint's own.",
)
@click.option(
    "--bundle",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="A bundle to add tasks, precisions or formats to; written to --out, or in place with --force.",
)
@click.option(
    "--out",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="The bundle's folder. Default: beside the checkpoint, CKPT's name with the suffix .bundle.",
)
@click.option(
    "--labels",
    metavar="[NAME=]FILE",
    multiple=True,
    callback=_named_paths,
    help="Names of a task's classes, one a line. Default: ImageNet's for 1000 classes, or numbers.",
)
@click.option(
    "--family", metavar="F", help="Vision model of an official checkpoint. Default: by its weights."
)
@click.option("--with-pixels", is_flag=True, help="Export the tasks' models on pixels too, as a baseline.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="What to write besides onnx, which is always written: torchscript, for libtorch; tensorrt, ONNX for "
    "TensorRT's parser. Repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="What to write besides fp32, which is always written: fp16, of every graph but those of the entropy "
    "model. Repeatable.",
)
@click.option("--name", help="What the bundle calls the model. Default: the checkpoint's file name.")
@click.option(
    "--opset",
    type=click.IntRange(OPSETS.start, OPSETS.stop - 1),
    show_default=str(DEFAULT_OPSET),
    help="ONNX opset of the graphs that are exported.",
)
@click.option(
    "--photo",
    type=click.Path(path_type=Path),
    help="Image to validate on. Default: a portrait that matplotlib carries.",
)
@click.option("--no-validate", is_flag=True, help="Skip the comparisons.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@engine_options
@version_option()
@click.pass_context
def _group(context: click.Context, **options: Any) -> int | None:
    """Export checkpoints to a bundle: ONNX graphs, entropy tables and a manifest that any machine runs.

    Every graph is compared with PyTorch on a real photo, at several sizes and qualities, fp16 and tensorrt
    graphs with the fp32 ones; one line a check says what was measured. A bundle that misses a bound is not
    written. With --bundle alone, fp16 and tensorrt are made of its files, without PyTorch; with --format
    tensorrt engines are then built, if TensorRT and a GPU are here. Exit codes: 0, 2 for an error, 130 when
    interrupted.
    """
    if context.invoked_subcommand is not None:
        return None
    return _export(**options)


def _export(
    stage1: Path | None,
    stage2: tuple[tuple[str | None, Path], ...],
    bundle: Path | None,
    out: Path | None,
    as_json: bool,
    engines: EngineOptions,
    **options: Any,
) -> int:
    if stage1 is None and not stage2 and bundle is None:
        raise UsageError("nothing to export: pass --stage1 CKPT or --stage2 CKPT")
    from .interrupts import remembered

    alone = stage1 is None and not stage2 and bundle is not None and _only_variants(**options)
    with_engines = alone and "tensorrt" in options["formats"]
    if engines != EngineOptions() and not with_engines:
        raise UsageError("options of engines were given; they take --bundle BUNDLE --format tensorrt alone")

    def report(line: str) -> None:
        check_interrupt()
        if not as_json and line.startswith(("ok ", "FAIL")):
            click.echo(line)
        else:
            say(line)

    started = time.perf_counter()
    with remembered() as check_interrupt:
        if alone and bundle is not None:
            made, checks = _extended(bundle, out, report, **options)
            if with_engines:
                _build_engines(made, engines, options["precisions"], report)
        else:
            made, checks = _exported(stage1, stage2, bundle, out, report, **options)
    _tell(made, checks, time.perf_counter() - started, as_json)
    return 0


def _exported(
    stage1: Path | None,
    stage2: tuple[tuple[str | None, Path], ...],
    bundle: Path | None,
    out: Path | None,
    report: Report,
    **options: Any,
) -> Made:
    """A bundle from checkpoints, with PyTorch."""
    from .export import export_bundle
    from .tasks import Stage2

    sources = [Stage2(path, name) for name, path in stage2]
    result = export_bundle(stage1, out, _options(**options), report, stage2=sources, bundle=bundle)
    return result.bundle, result.checks


def _only_variants(
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    family: str | None,
    labels: tuple[tuple[str | None, Path], ...],
    with_pixels: bool,
    **options: Any,
) -> bool:
    """Whether nothing is asked for but what is derived from a bundle's own files."""
    return bool(_variants(formats, precisions)) and not (
        "torchscript" in formats or family or labels or with_pixels
    )


def _variants(formats: tuple[str, ...], precisions: tuple[str, ...]) -> Variants:
    from .formats import Variants

    return Variants("fp16" in precisions, "tensorrt" in formats)


def _extended(
    bundle: Path,
    out: Path | None,
    report: Report,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    name: str | None,
    photo: Path | None,
    no_validate: bool,
    force: bool,
    opset: int | None,
    **options: Any,
) -> Made:
    """A bundle from a bundle, without PyTorch; its opset stays."""
    from .extend import extend_bundle

    if opset is not None:
        raise UsageError("--opset takes a checkpoint: a bundle's graphs keep the opset they were exported in")

    wanted = _variants(formats, precisions)
    return extend_bundle(
        bundle, out, wanted, report, validate=not no_validate, photo=photo, name=name, force=force
    )


def _build_engines(
    bundle: Bundle, engines: EngineOptions, precisions: tuple[str, ...], report: Report
) -> None:
    """Builds TensorRT engines, or says in one line why that is not possible here."""
    from .tensorrt.build import build_or_notice

    for precision in precisions or PRECISIONS[:1]:
        build_or_notice(bundle, replace(engines, precision=precision), report)


def _tell(made: Bundle, checks: tuple[Check, ...], seconds: float, as_json: bool) -> None:
    """Prints what the bundle now holds."""
    facts = made.describe()
    if as_json:
        click.echo(json.dumps({"command": "export", "seconds": round(seconds, 2), **facts}, indent=2))
        return
    told = f"{len(checks)} checks passed" if checks else "not validated"
    size = sum((made.path / stored.file).stat().st_size for g in made.manifest.graphs for stored in g.files())
    tasks = "".join(f", task {task['name']}" for task in facts["tasks"])
    graphs = f"{len(facts['graphs'])} graphs, {size / 1e6:.1f} MB"
    click.echo(f"{made.path}: {graphs}{tasks}, {told}, {seconds:.0f} s")


def _options(
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    name: str | None,
    opset: int | None,
    photo: Path | None,
    no_validate: bool,
    force: bool,
    family: str | None,
    labels: tuple[tuple[str | None, Path], ...],
    with_pixels: bool,
) -> ExportOptions:
    """What the options say, as the exporter takes it."""
    from .export import ExportOptions
    from .tasks import TaskOptions

    files = dict(labels)
    if len(files) < len(labels):
        raise UsageError("--labels is given twice for one task")
    tasks = TaskOptions(family, files, with_pixels)
    variants = _variants(formats, precisions)
    return ExportOptions(
        opset or DEFAULT_OPSET, not no_validate, photo, name, force, tasks, "torchscript" in formats, variants
    )


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
