"""Predictions from real files against the truth: each file is decoded once, for every way of predicting."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...backends import Backend, FloatArray
from ...bundle import Task
from ...codec import Codec
from ...codec.latent import Decoded
from ...codec.predict import Predictor, check_size
from ...errors import FAILURES
from ...metrics.scores import SCORINGS, Counts, Truth, agreement
from ...pictures.images import Pixels
from ...pictures.preprocess import preprocess
from ..failures import Failure, failure
from .curves import BPP, QUALITY, Column, Columns, ImageResult, mean_columns
from .measure import Picture
from .predictions import Earlier, Prediction, encode, predict_class
from .samples import Sample, read_mask

LATENT, PIXELS, REFERENCE = "latent", "pixels", "reference"
"""Ways of predicting: the bundle's task graph, its pixel graph on the decompressed picture, PyTorch."""

AGREEMENT, DIFFERENCE = "agreement", "difference"
_GATHERED: dict[str, Callable[[Sequence[float]], float]] = {
    AGREEMENT: lambda values: math.fsum(values) / len(values),
    DIFFERENCE: max,
}
"""What is told of the comparison with another model's predictions, and how it is gathered over pictures."""

Predict = Callable[[Decoded], FloatArray]
"""Decoded file -> logits, cut to the picture."""


def predictors(
    codec: Codec, task: Task, with_pixels: bool = False, reference: Backend | None = None
) -> dict[str, Predict]:
    """The ways of predicting that are asked for, by name.

    Raises:
        UsageError: the bundle has no pixel graph of the task.
    """
    ways: dict[str, Predict] = {LATENT: lambda decoded: codec.infer_latent(decoded, task.name)}
    if with_pixels:
        codec.predictor.pixel_task(task.name)
        ways[PIXELS] = lambda decoded: codec.infer_image(codec.synthesise(decoded), task.name)
    if reference is not None:
        model = Predictor(reference, codec.bundle.manifest)
        ways[REFERENCE] = lambda decoded: model.from_latents([decoded], task.name)[0]
    return ways


def column(way: str, figure: str) -> str:
    """What results call a figure of a way of predicting: those from latents by their own name."""
    return figure if way == LATENT else f"{way}-{figure}"


@dataclass
class Evaluation:
    """Counts a task's predictions, one picture after another.

    Attributes:
        codec: compresses and decodes.
        task: what is predicted.
        qualities: at which.
        ways: of predicting, by name.
        ignored: indexes in masks that do not count.
        first_class: index of the first class in masks; smaller ones do not count.
        earlier: predictions of an earlier run, to compare those from latents with.
        images: each picture's own figures.
        failures: pictures that are left out.
    """

    codec: Codec
    task: Task
    qualities: Sequence[float]
    ways: Mapping[str, Predict]
    ignored: Collection[int] = ()
    first_class: int = 0
    earlier: Earlier | None = None
    images: list[ImageResult] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.scoring = SCORINGS[self.task.kind]
        self.totals: dict[str, list[Counts]] = {}
        self.original: Counts | None = None

    def add(self, sample: Sample, name: str) -> tuple[str, ...]:
        """Evaluates a picture; one that cannot be read or does not fit the task is left out and listed.

        Returns:
            What had to be changed in the picture to read it, in sentences.
        """
        try:
            picture, notices = Picture.read(sample.source, name)
            prepared = preprocess(picture.pixels, self.task.preprocessing)
            check_size(self.task, self.codec.plan, (prepared.shape[0], prepared.shape[1]))
            truth = self._truth(sample, picture.pixels)
            counts, columns, predictions = self._at_all_qualities(prepared, truth)
            original = self._from_original(prepared, truth)
        except FAILURES as error:
            self.failures.append(failure(sample.source, error))
            return ()
        for way, found in counts.items():
            before = self.totals.get(way, [np.zeros_like(each) for each in found])
            self.totals[way] = [total + each for total, each in zip(before, found, strict=True)]
        if original is not None:
            self.original = original if self.original is None else self.original + original
        height, width = prepared.shape[:2]
        if self.earlier is not None:
            columns[AGREEMENT] = [
                self.earlier.agreement(name, picture.sha256, quality, prediction)
                for quality, prediction in zip(self.qualities, predictions[LATENT], strict=True)
            ]
        encoded = {way: list(map(encode, found)) for way, found in predictions.items()}
        self.images.append(ImageResult(name, width, height, picture.sha256, columns, predictions=encoded))
        return notices

    def results(self) -> Columns:
        """Rate and figures at each quality: rates are means over pictures, figures those of all together."""
        rates = {key: mean_columns(self.images)[key] for key in (QUALITY, BPP, "bytes")}
        figures = {way: [self.scoring.figures(each) for each in self.totals[way]] for way in self.ways}
        there = [key for key in _GATHERED if key in self.images[0].columns]
        return {**rates, **_columns(figures), **{key: self._gathered(key) for key in there}}

    def original_figures(self) -> dict[str, float | None]:
        """Figures of the pixel graph on the pictures before compression; empty where it was not asked for."""
        return {} if self.original is None else self.scoring.figures(self.original)

    def _gathered(self, key: str) -> Column:
        columns = zip(*(result.columns[key] for result in self.images), strict=True)
        known = ([value for value in values if value is not None] for values in columns)
        return [_GATHERED[key](values) if values else None for values in known]

    def _truth(self, sample: Sample, pixels: Pixels) -> Truth:
        if sample.mask is None:
            return np.array(sample.label, np.int64)
        size = pixels.shape[0], pixels.shape[1]
        return read_mask(sample.mask, size, self.task, self.ignored, self.first_class)

    def _at_all_qualities(
        self, pixels: Pixels, truth: Truth
    ) -> tuple[dict[str, list[Counts]], Columns, dict[str, list[Prediction]]]:
        """Counts of each way at each quality, the picture's own numbers, and the predictions."""
        counts: dict[str, list[Counts]] = {way: [] for way in self.ways}
        predictions: dict[str, list[Prediction]] = {way: [] for way in self.ways}
        rates: list[dict[str, float]] = []
        agreements: list[dict[str, float]] = []
        for quality in self.qualities:
            data = self.codec.compress(pixels, quality)
            decoded = self.codec.decode(data)
            logits = {way: predict(decoded) for way, predict in self.ways.items()}
            for way, found in logits.items():
                counts[way].append(self.scoring.count(found, truth))
                predictions[way].append(predict_class(found))
            area = pixels.shape[0] * pixels.shape[1]
            rates.append({QUALITY: quality, BPP: 8 * len(data) / area, "bytes": len(data)})
            agreements.append(agreement(logits[LATENT], logits[REFERENCE]) if REFERENCE in logits else {})
        figures = {way: [self.scoring.figures(each) for each in found] for way, found in counts.items()}
        return counts, {**_listed(rates), **_columns(figures), **_listed(agreements)}, predictions

    def _from_original(self, pixels: Pixels, truth: Truth) -> Counts | None:
        if PIXELS not in self.ways:
            return None
        return self.scoring.count(self.codec.infer_image(pixels, self.task.name), truth)


def _columns(figures: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Columns:
    """Figures of each way at each quality, as columns."""
    return {
        column(way, name): values for way, rows in figures.items() for name, values in _listed(rows).items()
    }


def _listed(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Column]:
    """Rows with the same keys as columns."""
    return {key: [row[key] for row in rows] for key in rows[0]}
