"""`polc decompress` and `polc verify`: `.polc` files to images, or to nothing but checksums."""

from __future__ import annotations

import hashlib
from functools import partial

import click

from ..codec import Codec
from ..errors import UsageError
from ..files.inputs import expand
from ..files.outputs import Job, Target
from ..pictures.images import encode_image, output_suffix
from .console import printable
from .jobs import POLC, plan_jobs, run_coding, target_of
from .options import CodecChoice, Output, Reporting, codec_choice, inputs, output, recursive, reporting
from .runner import Facts, coded_facts, read_input


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
    suffix = output_suffix(format_ or "png")
    jobs = plan_jobs(expand(arguments, {POLC}, recursive), output, reporting, {POLC}, suffix)
    suffix = _suffix(target_of(jobs[0]), format_)  # every job's: all outputs in a folder have one suffix
    with codec_choice.load() as codec:
        work = partial(_decompress_one, suffix=suffix)
        return run_coding("decompress", jobs, work, reporting, codec)


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
        return run_coding("verify", jobs, _verify_one, reporting, codec, _verify_text)


def _suffix(target: Target, format_: str | None) -> str:
    """The suffix in `images.OUTPUT_FORMATS` to write a target in."""
    if target.path is None:
        return output_suffix(format_ or "png")
    if format_ is None:
        return output_suffix(target.path.suffix)
    suffix = output_suffix(format_)
    if target.path.suffix and output_suffix(target.path.suffix) != suffix:
        raise UsageError(f"--format {format_} does not fit the name {target.name}; leave one of them out")
    return suffix


def _decompress_one(codec: Codec, job: Job, suffix: str) -> Facts:
    target = target_of(job)
    target.check()
    data = read_input(job, codec.limits)
    decoded = codec.decode(data)
    image = encode_image(codec.synthesise(decoded), suffix)
    target.write(image)
    written = {"output_bytes": len(image), "output_sha256": hashlib.sha256(image).hexdigest()}
    return {**coded_facts(decoded.header, len(data)), **written}


def _verify_one(codec: Codec, job: Job) -> Facts:
    data = read_input(job, codec.limits)
    decoded = codec.decode(data)
    return {**coded_facts(decoded.header, len(data)), "sha256": hashlib.sha256(data).hexdigest()}


def _verify_text(result: Facts) -> str:
    return f"{printable(result['input'])}: ok"
