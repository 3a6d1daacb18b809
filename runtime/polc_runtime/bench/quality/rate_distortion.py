"""Rate, distortion and time of codecs on images: every file is written to bytes and decoded from them."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...backends.facts import tool_facts
from ...codec import Codec
from ...errors import FAILURES
from ...metrics.distortion import PSNR, RESULT_NAMES, Metrics, choose_metrics
from ...pictures.images import Pixels
from ...pictures.listing import ImageItem, ImageLike, LeftOut, NothingMeasured, find_images
from ...trace import OnProgress, Steps
from ..plot import Line, Plot
from .codecs import Coder, as_coder, resolve_qualities
from .comparison import Comparison, compare, require_bd_rate
from .curves import BPP, QUALITY, Curve, ImageResult, columns_of, mean_columns

TIMES = ("encoding_time", "decoding_time")

Row = dict[str, float | None]
"""The numbers of one image by one codec at one quality, by name."""


@dataclass(frozen=True)
class RateDistortion:
    """Rate-distortion curves, and the first against each other one.

    Attributes:
        curves: those given, those measured, and those to compare with, in this order, under distinct names.
        measured: those measured, under their own names.
        comparisons: of the first curve with each other one.
        left_out: images that could not be read, or not by one codec.
        notices: sentences on what is missing, or makes a comparison less than fair.
    """

    curves: tuple[Curve, ...]
    measured: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    left_out: tuple[LeftOut, ...]
    notices: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "command": "rd",
            "failed": [each.to_dict() for each in self.left_out],
            "notices": list(self.notices),
            "curves": [curve.to_dict() for curve in self.curves],
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
        }

    def plot(self) -> Plot:
        """PSNR over the rate.

        Raises:
            DataError: a curve has no PSNR.
        """
        lines = [Line(curve.name, *map(list, curve.points(PSNR))) for curve in self.curves]
        first = self.curves[0]
        count = len(first.per_image)
        title = f"{first.name}, mean over {count} image{'' if count == 1 else 's'}" if count else ""
        return Plot(title, "PSNR in RGB, dB", lines)


def rate_distortion(
    images: ImageLike | Sequence[ImageLike],
    codecs: Mapping[Codec | Coder | str, Sequence[float] | None],
    metrics: Sequence[str] | None = None,
    given: Sequence[Curve] = (),
    against: Sequence[Curve] = (),
    recursive: bool = False,
    progress: OnProgress | None = None,
) -> RateDistortion:
    """Measures rate and distortion: compresses images to bytes and decompresses those, at every quality.

    Rates are those of whole files, header included; numbers are means over the images of each image's own.
    An image that cannot be read or coded is left out and listed.

    >>> import numpy as np
    >>> from polc_runtime import Codec
    >>> from polc_runtime.bench import rate_distortion
    >>> image = np.add.outer(np.arange(64), np.arange(96))[..., None].repeat(3, 2).astype(np.uint8)
    >>> with Codec.load("nano") as codec:
    ...     found = rate_distortion([image], {codec: [1, 8]}, metrics=["psnr"])
    >>> found.curves[0].results["quality"]
    [1.0, 8.0]
    >>> low, high = found.curves[0].results["psnr-rgb"]
    >>> low < high
    True

    Args:
        images: image files, folders of them, or uint8 [H,W,3] arrays; may be empty where curves are given.
        codecs: what is measured (a loaded codec, `jpeg`, `webp`, or any `Coder`) and its qualities; None for
            the codec's own.
        metrics: `psnr`, `ms-ssim`, `lpips` or others that are installed; None for all that run here.
        given: curves from earlier, before those that are measured; the first of all is compared.
        against: curves to compare with.
        recursive: search the sub-folders of folders too.
        progress: receives a report after each image, codec and quality.

    Raises:
        UsageError: a quality is out of range, there is no such metric or codec, or a folder without images.
        DataError: a curve from earlier has no PSNR.
        BackendUnavailable: a metric, or the package for BD-rates of several curves, is not installed.
        NothingMeasured: no image could be measured.
    """
    if len(given) + len(codecs) + len(against) > 1:
        require_bd_rate()
    for curve in (*given, *against):
        curve.points(PSNR)
    items = find_images(images, recursive)
    coders = {as_coder(codec): wanted for codec, wanted in codecs.items()}
    plan = {coder: resolve_qualities(coder, wanted) for coder, wanted in coders.items()}
    run = _CodecRuns(
        plan, choose_metrics(metrics), Steps(len(items) * sum(map(len, plan.values())), progress)
    )
    for item in items:
        run.add(item)
    measured = run.curves()
    if plan and not measured:
        raise NothingMeasured(run.left_out)
    curves = _named_apart([*given, *measured, *against])
    comparisons = [compare(curves[0], other) for other in curves[1:]]
    notices = _missing(measured) + [notice for each in comparisons for notice in each.notices]
    return RateDistortion(
        tuple(curves),
        tuple(measured),
        tuple(comparisons),
        tuple(run.left_out),
        tuple(dict.fromkeys(notices)),
    )


@dataclass(frozen=True)
class Original:
    """An image as every codec gets it."""

    name: str
    pixels: Pixels
    sha256: str

    @classmethod
    def read(cls, item: ImageItem) -> tuple[Original, tuple[str, ...]]:
        """The image, and sentences on what had to be changed to read it."""
        pixels, notices = item.read()
        found = tuple(f"{item.where}: {notice}" for notice in notices)
        return cls(item.name, pixels, hashlib.sha256(pixels.tobytes()).hexdigest()), found


class _CodecRuns:
    """Measures one image after another with all codecs.

    Args:
        plan: codecs and their qualities.
        metrics: what is measured besides rate and time.
        steps: counts images, codecs and qualities.
    """

    def __init__(self, plan: Mapping[Coder, Sequence[float]], metrics: Metrics, steps: Steps) -> None:
        self.plan, self.metrics, self.steps = plan, metrics, steps
        self.left_out: list[LeftOut] = []
        self._results: dict[Coder, list[ImageResult]] = {coder: [] for coder in plan}
        self._warm: set[Coder] = set()

    def add(self, item: ImageItem) -> None:
        """Measures an image; one that cannot be read, or not by a codec, is left out and listed."""
        try:
            original, notices = Original.read(item)
        except FAILURES as error:
            self.left_out.append(LeftOut.of(item, error))
            self.steps.step(count=sum(map(len, self.plan.values())))
            return
        self.steps.step(notices=notices, count=0)
        for coder, qualities in self.plan.items():
            start = self.steps.done
            try:
                self._results[coder].append(self._measure_all(item, original, coder, qualities))
            except FAILURES as error:
                self.left_out.append(LeftOut.of(item, error, coder.name))
                self.steps.step(count=start + len(qualities) - self.steps.done)

    def curves(self) -> list[Curve]:
        """The results of the codecs that have any."""
        return [self._curve(coder, found) for coder, found in self._results.items() if found]

    def _measure_all(
        self, item: ImageItem, original: Original, coder: Coder, qualities: Sequence[float]
    ) -> ImageResult:
        if coder not in self._warm:  # what a codec loads on first use is not part of its time
            coder.decode(coder.encode(original.pixels, qualities[0]))
            self._warm.add(coder)
        rows, reasons = [], {}
        for quality in qualities:
            row, why = self._measure(original.pixels, coder, quality)
            rows.append(row)
            reasons.update(why)
            psnr = "" if row.get(PSNR) is None else f", {row[PSNR]:.3f} dB"
            self.steps.step(f"{item.where}: {coder.name} {quality:g}: {row[BPP]:.4f} bpp{psnr}")
        height, width = original.pixels.shape[:2]
        return ImageResult(original.name, width, height, original.sha256, columns_of(rows), reasons)

    def _measure(self, pixels: Pixels, coder: Coder, quality: float) -> tuple[Row, dict[str, str]]:
        """The numbers, and why some metrics have none."""
        started = time.perf_counter()
        data = coder.encode(pixels, quality)
        encoded = time.perf_counter()
        decoded = coder.decode(data)
        seconds = encoded - started, time.perf_counter() - encoded
        distortion, reasons = self.metrics.measure(pixels, decoded)
        area = pixels.shape[0] * pixels.shape[1]
        rate = {QUALITY: quality, BPP: 8 * len(data) / area, "bytes": len(data)}
        row = {**rate, **coder.about(data), **distortion, **dict(zip(TIMES, seconds, strict=True))}
        return row, reasons

    def _curve(self, coder: Coder, results: Iterable[ImageResult]) -> Curve:
        """A codec's curve, without the metrics that turned out not to run."""
        gone = {RESULT_NAMES.get(name, name) for name in self.metrics.unavailable}
        kept = tuple(
            replace(each, columns={name: c for name, c in each.columns.items() if name not in gone})
            for each in results
        )
        facts: dict[str, Any] = {
            "tool": tool_facts(),
            "codec": coder.facts(),
            "images": len(kept),
            "unavailable": dict(self.metrics.unavailable),
        }
        return Curve(coder.name, coder.description, mean_columns(kept), kept, facts)


def _named_apart(curves: Iterable[Curve]) -> list[Curve]:
    """Curves, those that share their name with an earlier one numbered."""
    counts: Counter[str] = Counter()
    named = []
    for curve in curves:
        counts[curve.name] += 1
        number = counts[curve.name]
        named.append(curve if number == 1 else replace(curve, name=f"{curve.name} ({number})"))
    return named


def _missing(curves: Iterable[Curve]) -> list[str]:
    """Sentences on metrics that were not measured, or not on every image."""
    notices = []
    for curve in curves:
        notices += [f"not measured: {name}: {why}" for name, why in curve.facts["unavailable"].items()]
        without: dict[str, list[str]] = {}
        for result in curve.per_image:
            for name, reason in result.reasons.items():
                without.setdefault(name, []).append(f"{result.image}: {reason}")
        notices += [
            f"{curve.name}: {name} is not a mean over all of the {len(curve.per_image)} images; "
            f"{len(found)} lack it, such as {found[0]}"
            for name, found in without.items()
        ]
    return notices
