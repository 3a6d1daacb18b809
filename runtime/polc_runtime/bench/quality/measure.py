"""Rate, distortion and time of codecs on pictures: every file is written to bytes and decoded from them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...backends.facts import tool_facts
from ...errors import FAILURES
from ...files.inputs import Source
from ...metrics.distortion import RESULT_NAMES, Metrics
from ...pictures.images import Pixels, read_image
from ..failures import Failure, failure
from .codecs import Coder
from .curves import BPP, QUALITY, Column, Curve, ImageResult, mean_columns

TIMES = ("encoding_time", "decoding_time")

Row = dict[str, float | None]
"""The numbers of one unit by name."""


class Unit(NamedTuple):
    """One picture by one codec at one quality."""

    source: Source
    coder: Coder
    quality: float


@dataclass(frozen=True)
class Picture:
    """A picture as every codec gets it."""

    name: str
    pixels: Pixels
    sha256: str

    @classmethod
    def read(cls, source: Source, name: str) -> tuple[Picture, tuple[str, ...]]:
        """The picture of a file, and what had to be changed to get there."""
        pixels, notices = read_image(source.read(), name=source.name)
        return cls(name, pixels, hashlib.sha256(pixels.tobytes()).hexdigest()), notices


@dataclass
class Measurement:
    """Takes the numbers of one unit after another, and makes curves of them.

    Attributes:
        plan: codecs and their qualities.
        metrics: what is measured besides rate and time.
        tell: is given a sentence about a picture, to be shown.
        failures: pictures that are left out, with the reason, in order.
    """

    plan: Mapping[Coder, Sequence[float]]
    metrics: Metrics
    tell: Callable[[str], None] = lambda message: None
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rows: dict[Coder, dict[str, _Rows]] = {coder: {} for coder in self.plan}
        self._picture: tuple[Source, Picture] | None = None
        self._names: dict[Source, str] = {}
        self._failed: set[tuple[Source, Coder | None]] = set()
        self._warm: set[Coder] = set()

    def units(self, sources: Sequence[Source]) -> list[Unit]:
        """What is to be measured, picture by picture."""
        self._names = picture_names(sources)
        return [
            Unit(source, coder, quality)
            for source in sources
            for coder, qualities in self.plan.items()
            for quality in qualities
        ]

    def add(self, unit: Unit) -> Row | None:
        """Measures a unit; a picture that cannot be read, or not by this codec, is left out and listed.

        Returns:
            The numbers, or None.
        """
        source, coder, quality = unit
        if {(source, None), (source, coder)} & self._failed:
            return None
        try:
            picture = self._read(source)
        except FAILURES as error:
            self._fail(source, None, error)
            return None
        height, width = picture.pixels.shape[:2]
        rows = self._rows[coder].setdefault(picture.name, _Rows(picture.name, width, height, picture.sha256))
        try:
            self._warm_up(picture.pixels, coder, quality)
            rows.values.append(self._measure(picture.pixels, coder, quality, rows.reasons))
        except FAILURES as error:
            del self._rows[coder][picture.name]
            self._fail(source, coder, error)
            return None
        return rows.values[-1]

    def curves(self) -> list[Curve]:
        """The results of the codecs that have any."""
        return [_curve(coder, self._rows[coder], self.metrics) for coder in self.plan if self._rows[coder]]

    def _read(self, source: Source) -> Picture:
        if self._picture is None or self._picture[0] != source:
            picture, notices = Picture.read(source, self._names[source])
            for notice in notices:
                self.tell(f"notice: {source.name}: {notice}")
            self._picture = source, picture
        return self._picture[1]

    def _warm_up(self, pixels: Pixels, coder: Coder, quality: float) -> None:
        """Runs a codec once without a clock: what it loads on first use is no part of its time."""
        if coder not in self._warm:
            coder.decode(coder.encode(pixels, quality))
            self._warm.add(coder)

    def _measure(self, pixels: Pixels, coder: Coder, quality: float, reasons: dict[str, str]) -> Row:
        started = time.perf_counter()
        data = coder.encode(pixels, quality)
        encoded = time.perf_counter()
        decoded = coder.decode(data)
        seconds = encoded - started, time.perf_counter() - encoded
        distortion, why = self.metrics.measure(pixels, decoded)
        reasons.update(why)
        height, width = pixels.shape[:2]
        rate = {QUALITY: quality, BPP: 8 * len(data) / (width * height), "bytes": len(data)}
        return {**rate, **coder.about(data), **distortion, **dict(zip(TIMES, seconds, strict=True))}

    def _fail(self, source: Source, coder: Coder | None, error: Exception) -> None:
        self._failed.add((source, coder))
        self.failures.append(failure(source, error, coder.name if coder else None))


@dataclass
class _Rows:
    """The numbers of one picture by one codec, quality after quality."""

    image: str
    width: int
    height: int
    sha256: str
    values: list[Row] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    def result(self, metrics: Metrics) -> ImageResult:
        gone = {RESULT_NAMES.get(name, name) for name in metrics.unavailable}
        names = [name for name in self.values[0] if name not in gone]
        columns: dict[str, Column] = {name: [row.get(name) for row in self.values] for name in names}
        return ImageResult(self.image, self.width, self.height, self.sha256, columns, self.reasons)


def _curve(coder: Coder, rows: Mapping[str, _Rows], metrics: Metrics) -> Curve:
    results = tuple(each.result(metrics) for each in rows.values())
    facts: dict[str, Any] = {
        "tool": tool_facts(),
        "codec": coder.facts(),
        "images": len(results),
        "unavailable": dict(metrics.unavailable),
    }
    return Curve(coder.name, coder.description, mean_columns(results), results, facts)


def picture_names(sources: Sequence[Source]) -> dict[Source, str]:
    """What results call each picture: its place below the named folder, or its path if two share that."""
    short = {source: source.name if source.path is None else source.place.as_posix() for source in sources}
    counts = Counter(short.values())
    return {source: name if counts[name] == 1 else source.name for source, name in short.items()}
