"""Results of one codec, rate and distortion at each quality, as JSON in the shape CompressAI publishes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...files.inputs import Source
from ...metrics.distortion import PSNR

BPP = "bpp"
QUALITY = "quality"

Column = list[float | None]
"""One number for each quality; None where there is none."""

Columns = dict[str, Column]
Array = NDArray[np.float64]

ALIASES = {"psnr": PSNR, "ms-ssim": "ms-ssim-rgb", "msssim": "ms-ssim-rgb"}
"""Names in results that CompressAI published over the years -> those that it uses now."""

_KEYS = ("name", "description", "results", "per_image")
_FACTS = {"image": str, "width": int, "height": int, "sha256": str}


@dataclass(frozen=True)
class ImageResult:
    """One image at every quality.

    Attributes:
        image: its name below the folder that was measured.
        width: in pixels.
        height: in pixels.
        sha256: of its 8-bit RGB pixels, which tells images of one name apart.
        columns: its numbers by name.
        reasons: why numbers are missing, by the name of the metric.
    """

    image: str
    width: int
    height: int
    sha256: str
    columns: Columns
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the JSON."""
        facts = {"image": self.image, "width": self.width, "height": self.height, "sha256": self.sha256}
        return {**facts, **self.columns, **({"reasons": self.reasons} if self.reasons else {})}


@dataclass(frozen=True)
class Curve:
    """One codec's results.

    Attributes:
        name: what the codec is called.
        description: how it was run.
        results: mean over the images at each quality, by the name of the number.
        per_image: each image's own; empty where a file lacks them.
        facts: what else the JSON says: tool, codec, images.
    """

    name: str
    description: str
    results: Columns
    per_image: tuple[ImageResult, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: CompressAI's three keys, then what it does not have."""
        document = {"name": self.name, "description": self.description, "results": self.results, **self.facts}
        return {**document, "per_image": [result.to_dict() for result in self.per_image]}

    def points(self, metric: str) -> tuple[Array, Array]:
        """Rate in bpp, increasing strictly, and the metric at each.

        Raises:
            DataError: the results have no such metric.
        """
        return points(self.results, metric, self.name)


def mean_columns(results: Iterable[ImageResult]) -> Columns:
    """Each number's mean over the images that have it, by name and quality."""
    results = list(results)
    names = dict.fromkeys(name for result in results for name in result.columns)
    return {name: _means([r.columns[name] for r in results if name in r.columns]) for name in names}


def columns_of(rows: Sequence[Mapping[str, float | None]]) -> Columns:
    """Numbers by name, one row for each quality, as columns; what a row lacks is None."""
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def points(columns: Mapping[str, Column], metric: str, name: str) -> tuple[Array, Array]:
    """Rate in bpp, increasing strictly, and a metric; of points of one rate the one with the larger number.

    Raises:
        DataError: there is no such metric; the message begins with `name`.
    """
    pairs = zip(columns[BPP], columns.get(metric, ()), strict=False)
    best: dict[float, float] = {}
    for rate, value in pairs:
        if rate is not None and value is not None:
            best[rate] = max(value, best.get(rate, -math.inf))
    if not best:
        raise DataError(f"{name}: the results hold no {metric}; they have {', '.join(columns)}")
    rates = sorted(best)
    return np.array(rates), np.array([best[rate] for rate in rates])


def read_curves(path: Path) -> list[Curve]:
    """Results from a JSON file: one codec's, in CompressAI's shape, or all of `polc-bench rd --json`.

    Raises:
        PolcError: the file cannot be read.
        DataError: it holds no such results.
    """
    document = _read_json(path)
    several = isinstance(document, dict) and isinstance(document.get("curves"), list)
    try:
        return [_curve(entry, path) for entry in (document["curves"] if several else [document])]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read_json(path: Path) -> Any:
    text = Source(path, Path(path.name)).read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from None


def _curve(document: Any, path: Path) -> Curve:
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict):
        raise DataError("holds no rate-distortion results: expected an object with name and results")
    per_image = document.get("per_image", [])
    if not isinstance(per_image, list):
        raise DataError("per_image is not a list")
    columns = _columns(results, "results")
    return Curve(
        str(document.get("name") or path.stem),
        str(document.get("description", "")),
        columns,
        tuple(_image_result(entry, columns) for entry in per_image),
        {key: value for key, value in document.items() if key not in _KEYS},
    )


def _image_result(entry: Any, results: Columns) -> ImageResult:
    facts: dict[str, Any] = {key: entry.get(key) for key in _FACTS} if isinstance(entry, dict) else {}
    if not all(isinstance(facts.get(key), kind) for key, kind in _FACTS.items()):
        raise DataError(f"an entry of per_image lacks one of {', '.join(_FACTS)}")
    where = f"per_image: {facts['image']!r}"
    columns = _columns(entry, where)
    if len(columns[BPP]) != len(results[BPP]):
        raise DataError(f"{where}: has {len(columns[BPP])} qualities, results has {len(results[BPP])}")
    return ImageResult(**facts, columns=columns)


def _columns(values: Mapping[str, Any], where: str) -> Columns:
    """The entries that are lists of numbers, all of one length, under today's names."""
    columns = {ALIASES.get(key, key): value for key, value in values.items() if isinstance(value, list)}
    columns = {key: value for key, value in columns.items() if all(_is_number(each) for each in value)}
    if not columns.get(BPP):
        raise DataError(f"{where}: has no list of numbers under {BPP}")
    if wrong := [key for key, value in columns.items() if len(value) != len(columns[BPP])]:
        raise DataError(
            f"{where}: {wrong[0]} has {len(columns[wrong[0]])} entries, {BPP} {len(columns[BPP])}"
        )
    if any(rate is None or rate <= 0 for rate in columns[BPP]):
        raise DataError(f"{where}: {BPP} holds entries that are not positive")
    return columns


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _means(columns: list[Column]) -> Column:
    means: Column = []
    for values in zip(*columns, strict=True):
        known = [value for value in values if value is not None]
        means.append(math.fsum(known) / len(known) if known else None)
    return means
