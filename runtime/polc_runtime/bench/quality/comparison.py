"""One codec's rate-distortion curve against another's: BD-rate, and the difference at equal rate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ...errors import BackendUnavailable
from ...metrics.distortion import PSNR
from .curves import BPP, QUALITY, Array, Curve, ImageResult, points

METHOD = "pchip"
"""How curves are interpolated, in the BD-rate and at equal rate: over the logarithm of the rate."""


@dataclass(frozen=True)
class Delta:
    """One Bjontegaard delta.

    Attributes:
        value: percent of rate, or dB; None where there is none.
        overlap: part of both curves' whole range that it is taken over, 0..1.
        reason: why there is no value.
    """

    value: float | None
    overlap: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Difference:
    """PSNR of one codec minus another's at equal rate.

    Attributes:
        other: the other's PSNR in dB; at its lowest rate where it reaches none as low. None above its range.
        value: the difference in dB, or None.
        bound: whether `other` is taken at the lowest rate, so that the true difference is larger.
    """

    other: float | None
    value: float | None
    bound: bool = False


@dataclass(frozen=True)
class Level:
    """One quality of a codec against another codec.

    Attributes:
        quality: as the results call it; None where they do not.
        bpp: mean rate.
        psnr: mean PSNR in dB.
        mean: against the other's mean curve.
        worst: name of the image with the smallest difference to its own curve; None without such curves.
        worst_difference: that difference.
        images: how many were compared, each with its own curve.
        images_ahead: those of them with a positive difference.
    """

    quality: float | None
    bpp: float
    psnr: float
    mean: Difference
    worst: str | None = None
    worst_difference: Difference | None = None
    images: int = 0
    images_ahead: int = 0


@dataclass(frozen=True)
class Comparison:
    """A codec against another.

    Attributes:
        name: of the one.
        against: of the other.
        bd_rate: percent of rate at equal PSNR; negative is better.
        bd_psnr: dB at equal rate; positive is better.
        levels: the table of differences.
        notices: what makes the comparison less than fair.
    """

    name: str
    against: str
    bd_rate: Delta
    bd_psnr: Delta
    levels: tuple[Level, ...]
    notices: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {**asdict(self), "metric": PSNR, "interpolation": f"{METHOD} over log(bpp)"}


_AXES = {"bd_rate": PSNR, "bd_psnr": BPP}
"""What each delta is integrated over; the rate by its logarithm."""


def require_bd_rate() -> Any:
    """The package that computes BD-rates.

    Raises:
        BackendUnavailable: it, or scipy, which it needs, is not installed.
    """
    try:
        return import_module("bjontegaard")
    except ImportError as error:
        raise BackendUnavailable(
            f"a BD-rate needs {error.name or error}, which is not installed: pip install 'polc[bench]'"
        ) from None


def compare(curve: Curve, other: Curve) -> Comparison:
    """Compares two codecs' PSNR.

    Raises:
        DataError: one of them has no PSNR.
        BackendUnavailable: the package for BD-rates is not installed.
    """
    return Comparison(
        curve.name,
        other.name,
        _delta("bd_rate", curve, other),
        _delta("bd_psnr", curve, other),
        tuple(_levels(curve, other)),
        tuple(_notices(curve, other)),
    )


def difference(points: tuple[Array, Array], bpp: float, psnr: float) -> Difference:
    """How far a point lies above a curve, given as rates [n], which increase strictly, and PSNR [n]."""
    rates, values = points
    if bpp > rates[-1]:
        return Difference(None, None)
    if bpp <= rates[0]:
        return Difference(float(values[0]), psnr - float(values[0]), bound=bool(bpp < rates[0]))
    pchip = import_module("scipy.interpolate").PchipInterpolator(np.log(rates), values)
    other = float(pchip(np.log(bpp)))
    return Difference(other, psnr - other)


def _delta(kind: str, curve: Curve, other: Curve) -> Delta:
    """A delta as the package bjontegaard has it, where both curves allow for one."""
    axis = _AXES[kind]
    ranges = []
    for each in (curve, other):
        rates, psnr = each.points(PSNR)
        base = rates if axis == BPP else psnr
        if len(base) < 2:
            return Delta(None, reason=f"{each.name} has a single point")
        if not (np.diff(base) > 0).all():
            return Delta(None, reason=f"the {axis} of {each.name} does not rise with its rate throughout")
        ranges.append(base[[0, -1]])
    overlap = _overlap(*(np.log10(ranges) if axis == BPP else ranges))
    if overlap <= 0:
        names = zip((curve.name, other.name), ranges, strict=True)
        where = ", ".join(f"{name} from {low:.4g} to {high:.4g}" for name, (low, high) in names)
        return Delta(None, reason=f"the curves do not overlap in {axis} ({where})")
    function = getattr(require_bd_rate(), kind)
    curves = (*other.points(PSNR), *curve.points(PSNR))
    return Delta(float(function(*curves, METHOD, require_matching_points=False, min_overlap=0)), overlap)


def _overlap(one: Array, other: Array) -> float:
    """What two ranges share, as a part of what they span; 0 or less if they share nothing."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return float(shared / (max(one[1], other[1]) - min(one[0], other[0])))


def _levels(curve: Curve, other: Curve) -> list[Level]:
    mean = other.points(PSNR)
    ours = {(result.image, result.sha256): result for result in curve.per_image}
    pairs = [
        (ours[key], points(result.columns, PSNR, result.image))
        for result in other.per_image
        if (key := (result.image, result.sha256)) in ours and _has(ours[key], PSNR) and _has(result, PSNR)
    ]
    qualities = curve.results.get(QUALITY) or [None] * len(curve.results[BPP])
    rows = zip(qualities, curve.results[BPP], curve.results[PSNR], strict=True)
    return [
        Level(quality, bpp, psnr, difference(mean, bpp, psnr), **_by_image(pairs, index))
        for index, (quality, bpp, psnr) in enumerate(rows)
        if bpp is not None and psnr is not None
    ]


def _by_image(pairs: list[tuple[ImageResult, tuple[Array, Array]]], index: int) -> dict[str, Any]:
    """The fields of a `Level` that come from each image and the other codec's curve of it."""
    found: list[tuple[float, str, Difference]] = []
    for result, curve in pairs:
        bpp, psnr = result.columns[BPP][index], result.columns[PSNR][index]
        if bpp is not None and psnr is not None:
            each = difference(curve, bpp, psnr)
            found += [] if each.value is None else [(each.value, result.image, each)]
    if not found:
        return {}
    _, worst, smallest = min(found, key=lambda entry: entry[:2])
    ahead = sum(value > 0 for value, *_ in found)
    return {"worst": worst, "worst_difference": smallest, "images": len(found), "images_ahead": ahead}


def _has(result: ImageResult, metric: str) -> bool:
    return any(value is not None for value in result.columns.get(metric, ()))


def _notices(curve: Curve, other: Curve) -> list[str]:
    """Sentences on what the two were measured on, where it is not the same."""
    if not (curve.per_image and other.per_image):
        unknown = curve.name if other.per_image else other.name
        return [f"{unknown} does not say which images it was measured on, nor each one's numbers"]
    ours, theirs = ({result.image: result.sha256 for result in each.per_image} for each in (curve, other))
    notices = []
    if changed := [name for name, sha256 in ours.items() if theirs.get(name, sha256) != sha256]:
        notices.append(f"{changed[0]} is another image in {other.name} ({len(changed)} such)")
    if ours.keys() != theirs.keys():
        common = len(ours.keys() & theirs.keys())
        counts = f"{len(ours)} and {len(theirs)}, {common} of one name"
        notices.append(f"{curve.name} and {other.name} are means over different images: {counts}")
    return notices
