"""What `polc-bench rd` does: measures, compares, writes and prints."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from ...cli.bench.options import outputs, write
from ...cli.bench.rd import Request
from ...cli.bench.text import comparison_text, curve_text, curves_csv, pictures
from ...cli.console import bar_wanted, progress, say
from ...errors import DataError, UsageError
from ...files.inputs import Source, expand
from ...metrics.distortion import PSNR, choose_metrics
from ...pictures.images import INPUT_SUFFIXES
from ..failures import Failure, list_failures
from ..plot import Line, Plot, check_plot, draw
from .codecs import CODERS, PILLOW, POLC, Coder, PillowCoder, PolcCoder, settle_qualities
from .comparison import Comparison, compare, require_bd_rate
from .curves import BPP, Curve, read_curves
from .measure import Measurement, Row, Unit

_JSON = ".json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Outcome:
    """What there is to tell.

    Attributes:
        curves: all of them; the first is compared with the others.
        measured: those of this run.
        comparisons: of the first with each other.
        failures: pictures left out.
        notices: sentences.
    """

    curves: list[Curve]
    measured: list[Curve]
    comparisons: list[Comparison]
    failures: list[Failure]
    notices: list[str]


def run_rd(request: Request) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        PolcError: an option cannot be followed, or nothing could be measured.
    """
    outcome = _outcome(request)
    _write(request, outcome)
    for notice in outcome.notices:
        say(f"notice: {notice}")
    if request.reporting.as_json:
        click.echo(json.dumps(_document(outcome), indent=2, allow_nan=False))
    else:
        parts = [*map(curve_text, outcome.measured), *map(comparison_text, outcome.comparisons)]
        click.echo("\n\n".join(parts or map(curve_text, outcome.curves)))
    list_failures(outcome.failures)
    return 2 if outcome.failures else 0


def _outcome(request: Request) -> Outcome:
    """Measures and compares, once everything that can be wrong with the options has been looked at."""
    if not request.arguments and request.results is None:
        raise UsageError("there is nothing to measure: name IMAGES, or --results FILE.json")
    outputs([request.csv, request.plot], request.force)
    if request.plot is not None:
        check_plot(request.plot)
    given = [] if request.results is None else _read(request.results)
    others = [curve for path in request.against for curve in _read(path)]
    if len(given) + len(others) + (len(request.plan) if request.arguments else 0) > 1:
        require_bd_rate()
    measurement = _measure(request) if request.arguments else None
    measured = measurement.curves() if measurement else []
    failures = measurement.failures if measurement else []
    if measurement and not measured:
        list_failures(failures)
        raise DataError("no picture could be measured")
    curves = _named_apart([*given, *measured, *others])
    comparisons = [compare(curves[0], other) for other in curves[1:]]
    notices = [*_missing(measured), *(notice for each in comparisons for notice in each.notices)]
    return Outcome(curves, measured, comparisons, failures, list(dict.fromkeys(notices)))


def _read(path: Path) -> list[Curve]:
    """The results of a file, each with a PSNR to compare."""
    curves = read_curves(path)
    try:
        for curve in curves:
            curve.points(PSNR)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return curves


def _named_apart(curves: Iterable[Curve]) -> list[Curve]:
    """The curves, those that share a name with an earlier one numbered."""
    counts: Counter[str] = Counter()
    named = []
    for curve in curves:
        counts[curve.name] += 1
        number = counts[curve.name]
        named.append(curve if number == 1 else replace(curve, name=f"{curve.name} ({number})"))
    return named


def _measure(request: Request) -> Measurement:
    sources = _distinct(expand(request.arguments, INPUT_SUFFIXES, request.recursive))
    metrics = choose_metrics(request.metrics)
    with ExitStack() as stack:
        coders = {_coder(name, request, stack): wanted for name, wanted in request.plan.items()}
        plan = {coder: settle_qualities(coder, wanted) for coder, wanted in coders.items()}
        if request.output is not None:
            outputs([_result_file(request.output, coder.name, len(plan)) for coder in plan], request.force)
        verbose = request.reporting.verbose
        with_bar = bar_wanted(len(sources) * len(plan), verbose)
        measurement = Measurement(plan, metrics, lambda message: say(message, over_bar=with_bar))
        with progress(measurement.units(sources), "rd", with_bar) as units:
            for unit in units:
                row = measurement.add(unit)
                if verbose and row is not None:
                    say(_row_text(unit, row))
    return measurement


def _coder(name: str, request: Request, stack: ExitStack) -> Coder:
    if name in PILLOW:
        return PillowCoder(name)
    if name == POLC:
        return PolcCoder(stack.enter_context(request.codec_choice.load()))
    raise UsageError(f"no codec is named {name!r}; there are {', '.join(CODERS)}")


def _distinct(sources: Iterable[Source]) -> list[Source]:
    """The sources without those that are there already under another name."""
    return list({source.path and source.path.resolve(): source for source in sources}.values())


def _row_text(unit: Unit, row: Row) -> str:
    psnr = row.get(PSNR)
    shown = "" if psnr is None else f", {psnr:.3f} dB"
    return f"{unit.source.name}: {unit.coder.name} {unit.quality:g}: {row[BPP]:.4f} bpp{shown}"


def _missing(curves: Iterable[Curve]) -> list[str]:
    """Sentences on metrics that were not measured, or not on every picture."""
    notices = []
    for curve in curves:
        notices += [f"not measured: {name}: {why}" for name, why in curve.facts["unavailable"].items()]
        without: dict[str, list[str]] = {}
        for result in curve.per_image:
            for name, reason in result.reasons.items():
                without.setdefault(name, []).append(f"{result.image}: {reason}")
        notices += [
            f"{curve.name}: {name} is not a mean over all of the {len(curve.per_image)} pictures; "
            f"{len(found)} lack it, such as {found[0]}"
            for name, found in without.items()
        ]
    return notices


def _document(outcome: Outcome) -> dict[str, object]:
    return {
        "command": "rd",
        "failed": outcome.failures,
        "notices": outcome.notices,
        "curves": [curve.to_dict() for curve in outcome.curves],
        "comparisons": [comparison.to_dict() for comparison in outcome.comparisons],
    }


def _write(request: Request, outcome: Outcome) -> None:
    if request.output is not None:
        for curve in outcome.measured:
            text = json.dumps(curve.to_dict(), indent=2, allow_nan=False)
            file = _result_file(request.output, curve.name, len(request.plan))
            write(file, f"{text}\n".encode(), request.force)
    if request.csv is not None:
        write(request.csv, curves_csv(outcome.curves), request.force)
    if request.plot is not None:
        write(request.plot, draw(_plot(outcome.curves), request.plot.suffix), request.force)


def _result_file(output: Path, name: str, count: int) -> Path:
    """Where a codec's results go: the .json file that is named, or one of its own in a folder.

    Raises:
        UsageError: one file is named for several codecs.
    """
    if output.suffix.lower() != _JSON or output.is_dir():
        return output / f"{_UNSAFE.sub('-', name)}{_JSON}"
    if count > 1:
        raise UsageError(f"{output}: is one file, and {count} codecs are measured; name a folder")
    return output


def _plot(curves: Sequence[Curve]) -> Plot:
    lines = []
    for curve in curves:
        rates, values = curve.points(PSNR)
        lines.append(Line(curve.name, rates.tolist(), values.tolist()))
    count = len(curves[0].per_image)
    title = f"{curves[0].name}, mean over {pictures(count)}" if count else ""
    return Plot(title, "PSNR in RGB, dB", lines)
