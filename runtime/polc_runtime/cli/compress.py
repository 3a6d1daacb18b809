"""`polc compress`: images to `.polc` files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import click

from ..bundle import Task
from ..codec import Codec
from ..codec.pipeline import NetworkSlots
from ..codec.predict import check_size
from ..codec.rate import RateGoal
from ..files.inputs import expand
from ..files.outputs import Job
from ..pictures.images import INPUT_SUFFIXES, Pixels, read_image
from ..pictures.preprocess import preprocess
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
from .runner import Facts, read_input

Encode = Callable[[Pixels], tuple[float, bytes]]
"""Pixels, uint8 [H,W,3] -> the quality and the `.polc` file."""


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
    type=float,
    help="Within the bundle's range, usually from 1 (smallest) to 8 (best), in steps of 1/256. "
    "Default: the bundle's, usually 4.",
)
@click.option(
    "--bpp",
    type=float,
    help="The largest quality with at most this many bits of file for each pixel; within 1 %.",
)
@click.option(
    "--max-bytes",
    type=int,
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
    help="Make files decodable on machines whose floating-point rounding differs; costs up to 1 % of the "
    "file. Turn it off only if encoder and decoder are identical.",
)
@variant
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
    variant: str | None,
    recursive: bool,
    codec_choice: CodecChoice,
    reporting: Reporting,
) -> int:
    """Compress images to .polc files.

    IMAGES are files of any kind Pillow reads, folders, or '-'. Of an animation the first frame is taken; EXIF
    rotation is applied, transparency laid on white.
    """
    goal = RateGoal(quality, bpp, max_bytes)
    jobs = plan_jobs(expand(arguments, INPUT_SUFFIXES, recursive), output, reporting, INPUT_SUFFIXES, POLC)
    slots = NetworkSlots()
    with codec_choice.pool(slots, encodes=True) as codecs:
        codec = codecs.to_encode(goal.quality if codecs.qualities else None)
        if not codecs.qualities:
            goal.check(codec.plan.quality)
        codec.bundle.manifest.variant(variant)
        task = None if for_task is None else codec.bundle.manifest.task(for_task)
        encode = partial(goal.encode, codecs, portable=portable_bits == "on", variant=variant)
        return run_coding(
            "compress", jobs, partial(_compress_one, codec, task, encode, slots), reporting, codec, slots
        )


def _compress_one(codec: Codec, task: Task | None, encode: Encode, slots: NetworkSlots, job: Job) -> Facts:
    target = target_of(job)
    target.check()
    image = read_input(job, codec.limits, "max_image_bytes")
    pixels, notices = read_image(image, codec.limits, job.source.name)
    if task is not None:
        pixels, changes = _prepared(pixels, task, codec)
        notices += changes
    with slots.item():
        quality, data = encode(pixels)
    target.write(data)
    height, width = pixels.shape[:2]
    return {
        "width": width,
        "height": height,
        "quality": quality,
        "bytes": len(data),
        "bpp": 8 * len(data) / (width * height),
        "sha256": hashlib.sha256(data).hexdigest(),
        "notices": list(notices),
    }


def _prepared(pixels: Pixels, task: Task, codec: Codec) -> tuple[Pixels, tuple[str, ...]]:
    """An image as a task asks for it, and a sentence that says what was done to it."""
    prepared = preprocess(pixels, task.preprocessing, codec.limits)
    height, width = prepared.shape[:2]
    check_size(task, codec.plan, (height, width))
    if prepared is pixels:
        return pixels, ()
    before = f"{pixels.shape[1]}x{pixels.shape[0]}"
    return prepared, (f"scaled and cut for the task {task.name}: from {before} to {width}x{height}",)
