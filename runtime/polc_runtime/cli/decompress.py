"""`polc decompress` and `polc verify`: `.polc` files to images, or to nothing but checksums."""

from __future__ import annotations

import hashlib
from functools import partial

import click

from ..bitstream.container import Container
from ..codec import Codec
from ..codec.latent import Decoded
from ..codec.pipeline import NetworkSlots
from ..codec.pool import CodecPool
from ..errors import UsageError
from ..files.inputs import expand
from ..files.outputs import Job, Target
from ..pictures.images import encode_image, output_suffix
from .console import printable
from .jobs import POLC, plan_jobs, run_coding, target_of
from .options import (
    CodecChoice,
    Output,
    Reporting,
    codec_choice,
    inputs,
    output,
    recursive,
    reporting,
    variant,
)
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
@variant
@recursive
@codec_choice
@reporting
def decompress(
    arguments: tuple[str, ...],
    output: Output,
    format_: str | None,
    variant: str | None,
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
    slots = NetworkSlots()
    with codec_choice.pool(slots) as codecs:
        work = partial(_decompress_one, codecs, slots, suffix, variant)
        return run_coding("decompress", jobs, work, reporting, codecs.to_encode(), slots)


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
    if there is any.
    """
    jobs = [Job(source) for source in expand(arguments, {POLC}, recursive)]
    slots = NetworkSlots()
    with codec_choice.pool(slots) as codecs:
        work = partial(_verify_one, codecs, slots)
        return run_coding("verify", jobs, work, reporting, codecs.to_encode(), slots, _verify_text)


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


def _decompress_one(
    codecs: CodecPool, slots: NetworkSlots, suffix: str, variant: str | None, job: Job
) -> Facts:
    target = target_of(job)
    target.check()
    data = read_input(job, codecs.limits)
    with slots.item():
        decoded, codec, facts = _decode(codecs, data)
        pixels = codec.synthesise(decoded, variant)
    image = encode_image(pixels, suffix)
    target.write(image)
    return {**facts, "output_bytes": len(image), "output_sha256": hashlib.sha256(image).hexdigest()}


def _verify_one(codecs: CodecPool, slots: NetworkSlots, job: Job) -> Facts:
    data = read_input(job, codecs.limits)
    with slots.item():
        facts = _decode(codecs, data)[2]
    return {**facts, "sha256": hashlib.sha256(data).hexdigest()}


def _decode(codecs: CodecPool, data: bytes) -> tuple[Decoded, Codec, Facts]:
    """The latent of a file, what decoded it, and what is said of both."""
    container = Container.unpack(data, codecs.limits)
    codec = codecs.to_decode(container)
    facts = {**coded_facts(container.header, len(data)), "bundle": str(codec.bundle.path)}
    return codec.decode(container), codec, facts


def _verify_text(result: Facts) -> str:
    return f"{printable(result['input'])}: ok"
