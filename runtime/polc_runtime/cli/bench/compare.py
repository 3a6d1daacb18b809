"""`polc-bench compare`: two results of `polc-bench latency`, stage by stage.

Tables, which need numpy, are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from ...bench.documents import read_json
from ...errors import DataError
from ..console import printable, say
from ..options import Reporting, reporting
from .latency import COMMAND, FORMAT

FASTER, SLOWER, SAME = "faster", "slower", "within noise"
WHOLE = "whole"

_HEADING = ("operation", "stage", "A ms", "B ms", "B/A", "B/A at equal rate", "change")
_PICTURE = ("name", "width", "height")
_SETTINGS = ("backend", "device", "attention", "precision", "threads", "batch", "quality", "task")
_TIMES = ("min", "median", "p90")


@dataclass(frozen=True)
class Change:
    """How one stage of one operation changed from A to B.

    Attributes:
        configuration: its title.
        operation: name.
        stage: name; `whole` for all of it.
        a_seconds: median in A.
        b_seconds: median in B.
        ratio: B to A.
        normalised: likewise, each time multiplied by the rate of matrix products of its own run first, so
            that a slower machine does not count.
        change: faster or slower where the two ranges from the least to the 90th percentile, normalised, do
            not meet; else within noise.
    """

    configuration: str
    operation: str
    stage: str
    a_seconds: float
    b_seconds: float
    ratio: float
    normalised: float
    change: str


@dataclass(frozen=True)
class _Timing:
    """A stage's times, and the rate of matrix products beside it."""

    title: str
    least: float
    median: float
    p90: float
    rate: float

    def against(self, other: _Timing, operation: str, stage: str) -> Change:
        """The change from this one to another."""
        change = SAME
        if other.p90 * other.rate < self.least * self.rate:
            change = FASTER
        elif other.least * other.rate > self.p90 * self.rate:
            change = SLOWER
        ratio = other.median / self.median
        normalised = ratio * other.rate / self.rate
        return Change(self.title, operation, stage, self.median, other.median, ratio, normalised, change)


_Key = tuple[Any, ...]
_Timings = dict[_Key, _Timing]


@click.command(
    epilog="""\b
Examples:
  polc-bench compare before.json after.json
  polc-bench compare before.json after.json --json"""
)
@click.argument("a", metavar="A.json", type=click.Path(path_type=Path))
@click.argument("b", metavar="B.json", type=click.Path(path_type=Path))
@reporting
def compare(a: Path, b: Path, reporting: Reporting) -> int:
    """Compare two results of 'polc-bench latency -o', for every configuration that both measured.

    B/A is the ratio of medians; at equal rate, each time is multiplied by the rate of matrix products of its
    own run first. A change is told where the ranges from the least time to the 90th percentile do not meet.
    """
    return run_compare(a, b, reporting)


def run_compare(a: Path, b: Path, reporting: Reporting) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        DataError: a file is no result, or the two have nothing in common.
    """
    documents = [_read(path) for path in (a, b)]
    first, second = (_timings(document, path) for document, path in zip(documents, (a, b), strict=True))
    changes = [timing.against(second[key], *key[-2:]) for key, timing in first.items() if key in second]
    if not changes:
        raise DataError(f"{a} and {b} have no configuration in common: nothing to compare")
    only_a, only_b = _only(first, second), _only(second, first)
    if reporting.as_json:
        document = {
            "command": "compare",
            "a": str(a),
            "b": str(b),
            "only_a": only_a,
            "only_b": only_b,
            "changes": [asdict(change) for change in changes],
        }
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        click.echo(_text(changes))
    if len({str(document.get("bundle")) for document in documents}) > 1:
        say("notice: A and B were measured with other bundles")
    for path, titles in ((a, only_a), (b, only_b)):
        if titles:
            say(f"notice: only in {path}: {'; '.join(titles)}")
    return 0


def _only(there: _Timings, elsewhere: _Timings) -> list[str]:
    """Titles of the configurations and operations that one result has and the other lacks."""
    titles = (f"{timing.title}, {key[-2]}" for key, timing in there.items() if key not in elsewhere)
    return list(dict.fromkeys(titles))


def _read(path: Path) -> Mapping[str, Any]:
    """A document of `polc-bench latency`.

    Raises:
        DataError: it is none, or one of another format.
    """
    document: Any = read_json(path)
    if not isinstance(document, dict) or document.get("command") != COMMAND:
        raise DataError(f"{path}: is no result of 'polc-bench latency -o'")
    if document.get("format") != FORMAT:
        raise DataError(
            f"{path}: has the format {document.get('format')}, this polc reads {FORMAT}: measure again"
        )
    return document


def _timings(document: Mapping[str, Any], path: Path) -> _Timings:
    """Every stage of every operation of every configuration, by what it is compared by.

    Raises:
        DataError: something is missing, or no positive number where one should be.
    """
    found: _Timings = {}
    try:
        for each in document["configurations"]:
            head = (*(each["picture"][name] for name in _PICTURE), *(each[name] for name in _SETTINGS))
            rate = _positive(each["sgemm"]["limit_gflops"])
            for operation in each["operations"]:
                for stage in ({"stage": WHOLE, "seconds": operation["seconds"]}, *operation["stages"]):
                    least, median, p90 = (_positive(stage["seconds"][name]) for name in _TIMES)
                    key = (*head, str(operation["operation"]), str(stage["stage"]))
                    found[key] = _Timing(str(each["title"]), least, median, p90, rate)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no whole result of 'polc-bench latency -o': {_told(error)}") from None
    return found


def _told(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _positive(value: Any) -> float:
    number = float(value)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError(f"{value!r} is no positive number")
    return number


def _text(changes: Sequence[Change]) -> str:
    """A table for each configuration."""
    from .text import aligned

    parts = []
    for title in dict.fromkeys(change.configuration for change in changes):
        rows = [_row(change) for change in changes if change.configuration == title]
        parts.append(f"{printable(title)}\n{aligned([_HEADING, *rows])}")
    return "\n\n".join(parts)


def _row(change: Change) -> tuple[str, ...]:
    return (
        change.operation,
        change.stage,
        f"{1000 * change.a_seconds:.2f}",
        f"{1000 * change.b_seconds:.2f}",
        f"{change.ratio:.3f}",
        f"{change.normalised:.3f}",
        change.change,
    )
