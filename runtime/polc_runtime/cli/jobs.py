"""What several commands share: planning their outputs, and running jobs on a codec."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from ..codec import Codec
from ..codec.pipeline import NetworkSlots
from ..errors import UsageError
from ..files.inputs import STANDARD, Source
from ..files.outputs import Job, Target, plan
from .console import say
from .options import Output, Reporting
from .runner import Facts, Work, run

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
    return plan(sources, output.output, strip, suffix, output.force)


def run_coding(
    command: str,
    jobs: list[Job],
    work: Work,
    reporting: Reporting,
    codec: Codec,
    slots: NetworkSlots,
    show: Callable[[Facts], str] | None = None,
) -> int:
    """`runner.run` with a codec, which `-v` and `--json` describe; `slots` are those of its backend."""
    runs = codec.backend.describe()
    if reporting.verbose:
        say(", ".join(f"{key} {value}" for key, value in runs.items() if value is not None))
    about = {
        "bundle": str(codec.bundle.path),
        "model": codec.bundle.name,
        "backend": codec.backend.name,
        "runs": runs,
    }
    return run(command, jobs, work, reporting, show, about, slots.stop)


def target_of(job: Job) -> Target:
    """The output of a job that was planned with one."""
    if job.target is None:
        raise ValueError(f"{job.source.name} was planned without an output")
    return job.target
