"""What `polc-bench agreement` does: codes, decodes, counts, writes and prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from ..backends.facts import machine_facts, tool_facts
from ..bench.failures import Failure, failure, list_failures
from ..bitstream.calibration import Tolerances
from ..bundle import Bundle
from ..cli.bench.agreement import Request
from ..cli.bench.agreement_text import agreement_text
from ..cli.bench.options import outputs, write
from ..cli.console import bar_wanted, progress, say
from ..cli.runner import FAILURES
from ..codec import Codec
from ..errors import BackendUnavailable, DataError, UsageError
from ..files.inputs import Source, expand
from ..pictures.images import INPUT_SUFFIXES, read_image
from .measure import Agreement
from .settings import Setting

SETTINGS = (
    "onnxruntime:threads=1",
    "onnxruntime:threads=2",
    "onnxruntime:threads=1,optimisation=off",
    "onnxruntime:threads=2,optimisation=off",
    "onnxruntime:threads=1,optimisation=all",
    "onnxruntime:threads=2,optimisation=all",
    "onnxruntime:threads=1,optimisation=all,exact-attention=native",
)
"""Ways to run a bundle that are compared unless others are named."""

TORCH_SETTINGS = ("torch:threads=1", "torch:threads=2", "torch:threads=1,precision=fp64,noise=0.5")
"""More of them, where there is a checkpoint."""


def _same_for_all(exponents: tuple[int, ...], steps: int) -> Tolerances:
    """Tolerances of all qualities, from one exponent for all steps or one for each.

    Raises:
        UsageError: there is another number of them.
    """
    if len(exponents) not in (1, steps):
        raise UsageError(f"expected one exponent, or {steps}, one for each coding step; got {len(exponents)}")
    return Tolerances(((1.0, exponents * (steps // len(exponents))),))


def run_agreement(request: Request) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        PolcError: an option cannot be followed, or nothing could be measured.
    """
    outputs([request.output], request.force)
    texts = request.settings or (SETTINGS + (TORCH_SETTINGS if request.checkpoint else ()))
    settings = [Setting.parse(text) for text in dict.fromkeys(texts)]
    bundle = Bundle.load(request.bundle)
    sources = expand(request.arguments, INPUT_SUFFIXES, request.recursive)
    tolerances = bundle.manifest.tolerances
    if request.exponents is not None:
        tolerances = _same_for_all(request.exponents, len(bundle.manifest.plan.steps))
    with opened(settings, bundle, request.checkpoint, tolerances) as codecs:
        agreement = Agreement(codecs, tolerances, request.margin)
        failures = _measure(agreement, sources, request)
    if not agreement.files:
        list_failures(failures)
        raise DataError("no picture could be coded")
    document = {
        "command": "agreement",
        "bundle": bundle.describe()["name"],
        "settings": [
            {"setting": s.text, **codec.backend.describe()} for s, codec in zip(settings, codecs, strict=True)
        ],
        **agreement.document(),
        "failures": failures,
        "tools": tool_facts(),
        "machine": machine_facts(),
    }
    text = json.dumps(document, indent=2, allow_nan=False)
    if request.output is not None:
        write(request.output, (text + "\n").encode(), request.force)
    click.echo(text if request.reporting.as_json else agreement_text(document))
    list_failures(failures)
    return 2 if failures else 0


@contextmanager
def opened(
    settings: Sequence[Setting], bundle: Bundle, checkpoint: Path | None, tolerances: Tolerances
) -> Iterator[list[Codec]]:
    """A codec of each setting, of one bundle.

    Raises:
        BackendUnavailable: one of them cannot run here; the message names it.
    """
    with ExitStack() as stack:
        codecs = []
        for setting in settings:
            try:
                backend = setting.open(bundle, checkpoint, tolerances)
            except BackendUnavailable as error:
                raise BackendUnavailable(f"setting {setting.text}: {error}") from None
            codecs.append(stack.enter_context(Codec(bundle, backend)))
        yield codecs


def _measure(agreement: Agreement, sources: Sequence[Source], request: Request) -> list[Failure]:
    """Codes every picture at every quality; those that cannot be coded are left out and listed."""
    failures = []
    wanted = bar_wanted(len(sources), request.reporting.verbose)
    with progress(sources, "agreement", wanted) as bar:
        for source in bar:
            try:
                pixels, _ = read_image(source.read(), name=source.name)
                for quality in request.qualities:
                    lost = agreement.add(pixels, quality)
                    if request.reporting.verbose:
                        say(f"{source.name} at quality {quality:g}: {lost}")
            except FAILURES as error:
                failures.append(failure(source, error))
    return failures
