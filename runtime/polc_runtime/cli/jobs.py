"""What several commands share: planning their outputs, and the facts they report."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..files.inputs import STANDARD, Source
from ..files.outputs import Job, Target, plan
from ..limits import Limits
from .console import say
from .options import CodecChoice, Output, Reporting
from .runner import Facts, Work, run

if TYPE_CHECKING:
    from ..bitstream.container import Container
    from ..codec import Codec

POLC = ".polc"
"""Suffix of the files that `polc compress` writes."""


def plan_jobs(
    sources: list[Source], output: Output, reporting: Reporting, strip: Collection[str], suffix: str
) -> list[Job]:
    """Plans the outputs, and refuses what cannot go to standard output."""
    if output.output == STANDARD and reporting.as_json:
        raise UsageError("--json and '-o -' both want standard output; write the result to a file")
    if output.output == STANDARD and os.isatty(1):
        raise UsageError("'-o -' would write binary data to the terminal; redirect it, or name a file")
    return plan(sources, output.output, strip, suffix)


def about_codec(codec: Codec, choice: CodecChoice) -> Facts:
    """What a JSON document says of the bundle and what runs it."""
    facts = {"bundle": str(codec.bundle.path), "model": codec.bundle.name, "backend": codec.backend.name}
    return facts | {"runs": codec.backend.describe()}


def run_coding(
    command: str,
    jobs: Sequence[Job],
    work: Work,
    reporting: Reporting,
    codec: Codec,
    choice: CodecChoice,
    show: Callable[[Facts], str] | None = None,
) -> int:
    """`runner.run` with a codec, which `-v` describes first."""
    if reporting.verbose:
        runs = codec.backend.describe().items()
        say(", ".join(f"{key} {value}" for key, value in runs if value is not None))
    return run(command, jobs, work, reporting, show, about_codec(codec, choice))


def target_of(job: Job) -> Target:
    """The output of a job that was planned with one."""
    if job.target is None:
        raise ValueError(f"{job.source.name} was planned without an output")
    return job.target


def unpack(data: bytes, limits: Limits) -> Container:
    """The content of a `.polc` file."""
    from ..bitstream.container import Container

    return Container.unpack(data, limits)


def header_facts(data: bytes, limits: Limits) -> Facts:
    """Size, quality and rate of a `.polc` file."""
    header = unpack(data, limits).header
    return coded_facts(header.width, header.height, header.quality, data)


def coded_facts(width: int, height: int, quality: float, data: bytes) -> Facts:
    """Size, quality and rate of a file whose header is known."""
    size = len(data)
    return {
        "width": width,
        "height": height,
        "quality": quality,
        "bytes": size,
        "bpp": 8 * size / (width * height),
    }
