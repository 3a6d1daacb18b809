"""The `polc-export` command: checkpoints to bundles, bundles to bundles, and checkpoints to checkpoints."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polc_runtime.cli.console import say
from polc_runtime.cli.program import HELP, run_program, version_option
from polc_runtime.errors import UsageError

from .onnx.opsets import DEFAULT_OPSET, OPSETS
from .options import ExportOptions, Formats, Stage2, TaskOptions, VariantSource
from .tensorrt import EngineOptions, engine_options

if TYPE_CHECKING:
    from polc_runtime import Bundle

    from .checks import Check, Report

    Made = tuple[Bundle, tuple[Check, ...]]

FORMATS = ("onnx", "torchscript", "tensorrt")
PRECISIONS = ("fp32", "fp16")
Named = tuple[tuple[str | None, Path], ...]
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,63})=(.+)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `polc-export` command; returns its exit code (see `run_program`)."""
    return run_program(_group, "polc-export", arguments)


def _named_paths(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Named:
    """Splits [NAME=]PATH; `./A=B` is a path that has an equals sign."""
    found = [_NAMED.fullmatch(value) for value in values]
    return tuple(
        (match[1], Path(match[2])) if match else (None, Path(value))
        for match, value in zip(found, values, strict=True)
    )


def _variants(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[VariantSource, ...]:
    """Splits NAME=PATH."""
    named = _named_paths(context, parameter, values)
    if unnamed := [path for name, path in named if name is None]:
        raise click.BadParameter(f"{unnamed[0]} has no name: pass NAME={unnamed[0]}", context, parameter)
    return tuple(VariantSource(str(name), path) for name, path in named)


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
  polc-export --stage1 mbt2018-mean-3.pth.tar --quality 3
  polc-export ladder ladder/ q1.bundle q2.bundle q3.bundle
  polc-export --bundle polc.bundle --variant light=light.pth.tar --force
  polc-export --bundle polc.bundle --subset decode --out decoder.bundle
  polc-export convert polc.pth.tar polc.safetensors""",
)
@click.option(
    "--stage1",
    metavar="CKPT",
    type=click.Path(path_type=Path),
    help="Checkpoint of the codec, of any family and layout.",
)
@click.option(
    "--quality",
    type=click.FloatRange(1, 8),
    help="Which quality of its ladder a codec of one rate is. Default: 4.",
)
@click.option(
    "--stage2",
    metavar="[NAME=]CKPT",
    multiple=True,
    callback=_named_paths,
    help="Checkpoint of a task; its backbone must be the bundle's codec, or becomes it. "
    "Repeatable. Default NAME: the checkpoint's own.",
)
@click.option(
    "--bundle",
    metavar="BUNDLE",
    type=click.Path(path_type=Path),
    help="A bundle to add tasks, variants, precisions, formats to; written to --out, or in place by --force.",
)
@click.option(
    "--variant",
    "variants",
    metavar="NAME=CKPT",
    multiple=True,
    callback=_variants,
    help="Checkpoint whose analysis and synthesis are added to the bundle under a name; it must have the "
    "bundle's entropy model. Repeatable.",
)
@click.option(
    "--subset",
    metavar="decode|encode|TASK",
    multiple=True,
    help="Write only the graphs that decoding, encoding or a task needs. Repeatable. Default: all.",
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
def _group(
    context: click.Context,
    stage1: Path | None,
    quality: float | None,
    stage2: Named,
    bundle: Path | None,
    variants: tuple[VariantSource, ...],
    subset: tuple[str, ...],
    out: Path | None,
    labels: Named,
    family: str | None,
    with_pixels: bool,
    formats: tuple[str, ...],
    precisions: tuple[str, ...],
    name: str | None,
    opset: int | None,
    photo: Path | None,
    no_validate: bool,
    force: bool,
    as_json: bool,
    engines: EngineOptions,
) -> int | None:
    """Export checkpoints to a bundle: ONNX graphs, entropy tables and a manifest that any machine runs.

    Every graph is compared with PyTorch on a real photo, at several sizes and qualities, fp16 and tensorrt
    graphs with the fp32 ones; one line a check says what was measured. A bundle that misses a bound is not
    written. With --bundle alone, fp16 and tensorrt are made of its files, without PyTorch; with --format
    tensorrt engines are then built, if TensorRT and a GPU are here. Exit codes: 0, 2 for an error, 130 when
    interrupted.
    """
    if context.invoked_subcommand is not None:
        return None
    options = ExportOptions(
        opset=opset,
        validate=not no_validate,
        photo=photo,
        name=name,
        force=force,
        quality=quality,
        tasks=TaskOptions(family, _once(labels), with_pixels),
        torchscript="torchscript" in formats,
        formats=Formats("fp16" in precisions, "tensorrt" in formats),
        subset=subset,
    )
    tasks = [Stage2(path, task) for task, path in stage2]
    if stage1 is None and bundle is None and not (tasks or variants):
        raise UsageError("nothing to export: pass --stage1 CKPT or --stage2 CKPT")
    without_torch = _needs_no_checkpoint(options) and stage1 is None and not (tasks or variants)
    if engines != EngineOptions() and not (without_torch and options.formats.tensorrt):
        raise UsageError("options of engines were given; they take --bundle BUNDLE --format tensorrt alone")
    from .interrupts import sigint_flag

    started = time.perf_counter()
    with sigint_flag() as check_interrupt:

        def report(line: str) -> None:
            check_interrupt()
            if not as_json and line.startswith(("ok ", "FAIL")):
                click.echo(line)
            else:
                say(line)

        if without_torch and bundle is not None:
            from polc_runtime import Bundle

            from .extend import extend_bundle

            if options.formats.tensorrt:
                engines.shapes.check(Bundle.load(bundle).manifest.plan.pad)
            made, checks = extend_bundle(bundle, out, options, report)
            if options.formats.tensorrt:
                _build_engines(made, engines, precisions or PRECISIONS[:1], report)
        else:
            from .export import export_bundle

            result = export_bundle(
                stage1, out, options, report, stage2=tasks, variants=variants, bundle=bundle
            )
            made, checks = result.bundle, result.checks
    _print_result(made, checks, time.perf_counter() - started, as_json)
    return 0


def _once(labels: Named) -> Mapping[str | None, Path]:
    """Files of labels by task."""
    files = dict(labels)
    if len(files) < len(labels):
        raise UsageError("--labels is given twice for one task")
    return files


def _needs_no_checkpoint(options: ExportOptions) -> bool:
    """Whether a bundle's own files are all that is needed."""
    wanted = bool(options.formats or options.subset)
    return wanted and not options.torchscript and options.tasks == TaskOptions()


def _build_engines(bundle: Bundle, engines: EngineOptions, precisions: Sequence[str], report: Report) -> None:
    """Builds TensorRT engines, or says in one line why that is not possible here."""
    from .tensorrt.build import build_or_notice

    for precision in precisions:
        build_or_notice(bundle, replace(engines, precision=precision), report)


def _print_result(made: Bundle, checks: tuple[Check, ...], seconds: float, as_json: bool) -> None:
    """Prints what the bundle now holds."""
    facts = made.describe()
    if as_json:
        click.echo(json.dumps({"command": "export", "seconds": round(seconds, 2), **facts}, indent=2))
        return
    validation = f"{len(checks)} checks passed" if checks else "not validated"
    size = sum((made.path / stored.file).stat().st_size for g in made.manifest.graphs for stored in g.files())
    tasks = "".join(f", task {task['name']}" for task in facts["tasks"])
    variants = "".join(f", variant {variant.name}" for variant in made.manifest.variants)
    graphs = f"{len(facts['graphs'])} graphs, {size / 1e6:.1f} MB"
    click.echo(f"{made.path}: {graphs}{tasks}{variants}, {validation}, {seconds:.0f} s")


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


@_group.command(
    epilog="""\b
Examples:
  polc-export ladder mean.ladder q1.bundle q2.bundle q3.bundle
  polc-export ladder mean.ladder *.bundle --link --force"""
)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Hard-link the files, instead of copying them.")
@click.option("--force", is_flag=True, help="Replace an existing ladder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
def ladder(out: Path, bundles: tuple[Path, ...], link: bool, force: bool, as_json: bool) -> int:
    """Make a ladder: a folder of BUNDLEs of one rate each, between which `polc compress --quality` chooses.

    The bundles were exported with --quality, each with another.
    """
    from .ladder import write_ladder

    made = write_ladder(out, bundles, link, force)
    if as_json:
        rungs = [{"quality": rung.quality, "path": str(rung.path)} for rung in made.rungs]
        click.echo(json.dumps({"command": "ladder", "path": str(out), "bundles": rungs}, indent=2))
    else:
        click.echo(f"{out}: qualities {', '.join(f'{quality:g}' for quality in made.qualities)}")
    return 0
