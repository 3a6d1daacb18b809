"""What each command of `polc` does for one input; `runner.run` does it for all of them.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UsageError
from ..files.inputs import STANDARD, Source, check_names, expand
from ..files.outputs import Job, Target
from ..limits import Limits
from .bundle_text import bundle_text
from .console import printable
from .infer import infer
from .jobs import POLC, coded_facts, header_facts, plan_jobs, run_coding, target_of, unpack
from .options import CodecChoice, Output, Reporting, codec_choice, inputs, output, recursive, reporting
from .overlap import Turn
from .program import current_limits
from .runner import Facts, run, table

if TYPE_CHECKING:
    from ..bundle import Task
    from ..codec import Codec
    from ..pictures.images import Pixels

DEFAULT_QUALITY = 4.0

Coder = Callable[["Codec", "Pixels"], tuple[float, bytes]]
"""Codec and picture -> the quality chosen and the `.polc` file."""


def _finite(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number", context, parameter)
    return value


@click.command(
    epilog="""\b
Examples:
  polc compress photo.png -o photo.polc --bundle nano/
  polc compress photos/ -o coded/ --recursive --quality 5.5
  polc compress photo.png -o photo.polc --bpp 0.3
  polc compress *.jpg -o coded/ --max-bytes 20000 --json > report.json
  polc compress val/ -o coded/ --recursive --for-task convnext_tiny
  polc compress photos/ -o coded/ --portable-bits off
  cat photo.png | polc compress - -o - > photo.polc"""
)
@inputs("IMAGES")
@output
@click.option(
    "--quality",
    type=click.FloatRange(1, 8),
    callback=_finite,
    help=f"From 1 (smallest) to 8 (best), in steps of 1/256. Default: {DEFAULT_QUALITY:g}.",
)
@click.option(
    "--bpp",
    type=click.FloatRange(0, min_open=True),
    callback=_finite,
    help="The largest quality with at most this many bits of file for each pixel; within 1 %.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    help="The largest quality whose file is not larger; within 1 %.",
)
@click.option(
    "--for-task",
    metavar="NAME",
    help="Scale and cut images first as a task of the bundle asks for, so that accuracies compare.",
)
@click.option(
    "--portable-bits",
    type=click.Choice(["on", "off"]),
    default="on",
    show_default=True,
    help="Whether files decode on machines and backends that round differently too. Off, for systems of one "
    "kind of machine, saves about a hundredth of a file at most.",
)
@recursive
@codec_choice
@reporting
def compress(
    arguments: tuple[str, ...],
    output: Output,
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    for_task: str | None,
    portable_bits: str,
    recursive: bool,
    codec_choice: CodecChoice,
    reporting: Reporting,
) -> int:
    """Compress images to .polc files.

    IMAGES are files of any kind Pillow reads, folders, or '-'. Of an animation the first frame is taken; EXIF
    rotation is applied, transparency laid on white.
    """
    from ..pictures.images import INPUT_SUFFIXES

    coder = _coder(quality, bpp, max_bytes, portable_bits == "on")
    jobs = plan_jobs(expand(arguments, INPUT_SUFFIXES, recursive), output, reporting, INPUT_SUFFIXES, POLC)
    with codec_choice.load() as codec:
        task = None if for_task is None else codec.bundle.manifest.task(for_task)
        work = partial(_compress_one, codec, coder, task, output.force)
        return run_coding("compress", jobs, work, reporting, codec, codec_choice)


@click.command(
    epilog="""\b
Examples:
  polc decompress photo.polc -o photo.png
  polc decompress coded/ -o pictures/ --recursive --format webp
  polc decompress photo.polc -o - | display -"""
)
@inputs("FILES")
@output
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    help="png, jpg, webp, tif, bmp or ppm. Default: OUT's suffix, or png.",
)
@recursive
@codec_choice
@reporting
def decompress(
    arguments: tuple[str, ...],
    output: Output,
    format_: str | None,
    recursive: bool,
    codec_choice: CodecChoice,
    reporting: Reporting,
) -> int:
    """Decompress .polc files to 8-bit RGB images.

    FILES are .polc files, folders, or '-'. jpg is written at quality 95; every other format is lossless.
    """
    from ..pictures.images import output_suffix

    suffix = output_suffix(format_ or "png")
    jobs = plan_jobs(expand(arguments, {POLC}, recursive), output, reporting, {POLC}, suffix)
    suffixes = {job: _format(job.target, format_) for job in jobs}
    with codec_choice.load() as codec:
        work = partial(_decompress_one, codec, suffixes, output.force)
        return run_coding("decompress", jobs, work, reporting, codec, codec_choice)


@click.command(
    epilog="""\b
Examples:
  polc verify photo.polc
  polc verify archive/ --recursive --json"""
)
@inputs("FILES")
@recursive
@codec_choice
@reporting
def verify(
    arguments: tuple[str, ...], recursive: bool, codec_choice: CodecChoice, reporting: Reporting
) -> int:
    """Check .polc files: decode every symbol and compare all checksums, without making the image.

    A line 'FILE: ok' on standard output for each good file, an error line for each bad one, and exit code 2
    if there is any. The bundle must be the one that made the files.
    """
    jobs = [Job(source) for source in expand(arguments, {POLC}, recursive)]
    with codec_choice.load() as codec:
        work = partial(_verify_one, codec)
        return run_coding("verify", jobs, work, reporting, codec, codec_choice, _verify_text)


@click.command(
    epilog="""\b
Examples:
  polc info photo.polc
  polc info nano/ --json"""
)
@inputs("FILE|BUNDLE")
@reporting
def info(arguments: tuple[str, ...], reporting: Reporting) -> int:
    """Show what .polc files and bundles hold.

    Of a .polc file the header and the size of each section, which needs no bundle; of a bundle, a folder, the
    summary of its manifest.
    """
    check_names(arguments)
    jobs = [Job(_named(argument)) for argument in arguments]
    return run("info", jobs, partial(_info_one, current_limits()), reporting, _info_text)


COMMANDS: dict[str, click.Command] = {
    "compress": compress,
    "decompress": decompress,
    "infer": infer,
    "verify": verify,
    "info": info,
}


def _coder(quality: float | None, bpp: float | None, max_bytes: int | None, portable: bool) -> Coder:
    """The coder for the one of the three that is given, or for the default quality."""
    from ..codec.rate import STEPS, closest_to_bpp, largest_quality_within

    def encoder(codec: Codec, pixels: Pixels) -> Callable[[float], bytes]:
        return partial(codec.compress, pixels, portable=portable)

    if sum(value is not None for value in (quality, bpp, max_bytes)) > 1:
        raise UsageError("--quality, --bpp and --max-bytes exclude each other; give one of them")
    if bpp is not None:
        return lambda codec, pixels: closest_to_bpp(
            encoder(codec, pixels),
            bpp,
            pixels.shape[1],
            pixels.shape[0],
            *codec.bundle.manifest.quality_range,
        )
    if max_bytes is not None:
        return lambda codec, pixels: largest_quality_within(
            encoder(codec, pixels), max_bytes, *codec.bundle.manifest.quality_range
        )
    chosen = round((DEFAULT_QUALITY if quality is None else quality) * STEPS) / STEPS
    return lambda codec, pixels: (chosen, encoder(codec, pixels)(chosen))


def _format(target: Target | None, format_: str | None) -> str:
    """The suffix in `images.OUTPUT_FORMATS` to write a target in."""
    from ..pictures.images import output_suffix

    if target is None or target.path is None:
        return output_suffix(format_ or "png")
    if format_ is None:
        return output_suffix(target.path.suffix)
    suffix = output_suffix(format_)
    if target.path.suffix and output_suffix(target.path.suffix) != suffix:
        raise UsageError(f"--format {format_} does not fit the name {target.name}; leave one of them out")
    return suffix


def _compress_one(codec: Codec, coder: Coder, task: Task | None, force: bool, job: Job, turn: Turn) -> Facts:
    from ..pictures.images import read_image

    target = target_of(job)
    target.check(force)
    pixels, notices = read_image(job.source.read(codec.limits), codec.limits, job.source.name)
    if task is not None:
        pixels, changes = _prepared(pixels, task, codec)
        notices += changes
    height, width = pixels.shape[:2]
    with turn.networks():
        quality, data = coder(codec, pixels)
    turn.write(target, data, force)
    facts = coded_facts(width, height, quality, data)
    return {**facts, "sha256": hashlib.sha256(data).hexdigest(), "notices": list(notices)}


def _prepared(pixels: Pixels, task: Task, codec: Codec) -> tuple[Pixels, tuple[str, ...]]:
    """A picture as a task asks for it, and a sentence that says what was done to it."""
    from ..codec.predict import check_size
    from ..pictures.preprocess import preprocess

    prepared = preprocess(pixels, task.preprocessing, codec.limits)
    height, width = prepared.shape[:2]
    check_size(task, codec.plan, (height, width))
    if prepared is pixels:
        return pixels, ()
    before = f"{pixels.shape[1]}x{pixels.shape[0]}"
    return prepared, (f"scaled and cut for the task {task.name}: from {before} to {width}x{height}",)


def _decompress_one(codec: Codec, suffixes: dict[Job, str], force: bool, job: Job, turn: Turn) -> Facts:
    from ..pictures.images import encode_image

    target = target_of(job)
    target.check(force)
    data = job.source.read(codec.limits, "max_bytes")
    facts = header_facts(data, codec.limits)
    with turn.networks():
        pixels = codec.decompress(data)
    image = encode_image(pixels, suffixes[job])
    turn.write(target, image, force)
    written = {"output_bytes": len(image), "output_sha256": hashlib.sha256(image).hexdigest()}
    return {**facts, **written}


def _verify_one(codec: Codec, job: Job, turn: Turn) -> Facts:
    data = job.source.read(codec.limits, "max_bytes")
    facts = header_facts(data, codec.limits)
    with turn.networks():
        codec.verify(data)
    return {**facts, "sha256": hashlib.sha256(data).hexdigest()}


def _verify_text(result: Facts) -> str:
    return f"{printable(result['input'])}: ok"


def _info_one(limits: Limits, job: Job, turn: Turn) -> Facts:
    from ..backends.op_library import find_op_library
    from ..bundle import Bundle

    if job.source.path is not None and job.source.path.is_dir():
        facts = Bundle.load(job.source.path, limits).describe()
        return {"kind": "bundle", **facts, "attention": find_op_library().attention}
    data = job.source.read(limits, "max_bytes")
    container = unpack(data, limits)
    header = container.header
    return {
        "kind": "polc",
        **coded_facts(header.width, header.height, header.quality, data),
        "fingerprint": header.fingerprint.hex(),
        "codec_id": header.codec_id.hex(),
        "section_bytes": dict(container.section_sizes),
        "tolerance_exponents": list(container.calibration.exponents) if container.calibration else None,
    }


def _info_text(result: Facts) -> str:
    if result["kind"] == "bundle":
        return f"{printable(result['input'])}\n{bundle_text(result)}"
    hidden = {"input", "ok", "seconds", "warnings"}
    facts = {key: value for key, value in result.items() if key not in hidden}
    return f"{printable(result['input'])}\n{table(facts)}"


def _named(argument: str) -> Source:
    return Source(None if argument == STANDARD else Path(argument), Path())
