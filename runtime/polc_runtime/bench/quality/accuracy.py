"""A task's predictions from real files against the truth: each file is decoded once, for all predictions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...backends import Backend, FloatArray
from ...backends.facts import tool_facts
from ...backends.reference import load_reference
from ...bundle import SEGMENTATION, Task
from ...codec import Codec
from ...codec.latent import Decoded
from ...codec.predict import Predictor, check_size
from ...datasets import (
    IGNORED_LABEL,
    Sample,
    Samples,
    Truth,
    find_samples,
    label_map,
    read_labels,
    to_classes,
)
from ...errors import FAILURES, DataError, ImageError
from ...files.inputs import Source
from ...metrics.scores import NO_CLASS, SCORINGS, Classes, Counts, agreement, by_class
from ...pictures.images import Pixels
from ...pictures.listing import ImageLike, LeftOut, NothingMeasured, name_images
from ...pictures.preprocess import preprocess
from ...trace import OnProgress, Steps
from ..plot import Line, Plot
from .codecs import PolcCoder, codec_facts, resolve_qualities
from .curves import BPP, QUALITY, Column, Columns, ImageResult, columns_of, mean_columns
from .rate_distortion import Original

LATENT, PIXELS, REFERENCE = "latent", "pixels", "reference"
"""Ways of predicting: the bundle's task graph, its pixel graph on the decompressed image, PyTorch."""

RUNS_CHECKPOINT = "torch"
"""The backend that runs the checkpoint's model itself."""

AGREEMENT, DIFFERENCE = "agreement", "difference"
_LABELS = {
    LATENT: "from latents",
    PIXELS: "from decompressed pixels",
    REFERENCE: "from latents, PyTorch",
}
ORIGINAL_LABEL = "from original pixels"

Predict = Callable[[Decoded], FloatArray]
"""Decoded file -> logits, cut to the image."""

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Accuracy:
    """A task's accuracy at each quality.

    Attributes:
        results: rates, means over the images; and figures of all images together, by name. Figures of other
            ways of predicting than from latents have the way before their names.
        original: figures of the original pixels; empty where they were not predicted from.
        per_image: each image's own numbers.
        left_out: images that could not be used.
        notices: sentences on how labels were read.
        iou: of a segmentation: way of predicting -> class -> IoU at each quality.
        ignored: of a segmentation: labels that do not count.
        tool: versions of what measured.
        codec: the bundle, and what runs it.
    """

    name: str
    description: str
    results: Columns
    original: Figures
    per_image: tuple[ImageResult, ...]
    left_out: tuple[LeftOut, ...]
    notices: tuple[str, ...]
    task: Task
    iou: dict[str, dict[str, Column]]
    ignored: tuple[int, ...]
    tool: dict[str, Any]
    codec: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        task = self.task
        segmentation = {"iou": self.iou, "ignored": list(self.ignored)} if task.kind == SEGMENTATION else {}
        return {
            "command": "accuracy",
            "name": self.name,
            "description": self.description,
            "results": self.results,
            "original": self.original,
            "images": len(self.per_image),
            "failed": [each.to_dict() for each in self.left_out],
            "notices": list(self.notices),
            "task": {
                "name": task.name,
                "family": task.family,
                "kind": task.kind,
                "classes": len(task.classes),
                "preprocessing": task.preprocessing.to_dict(),
            },
            "tool": self.tool,
            "codec": self.codec,
            **segmentation,
            "per_image": [result.to_dict() for result in self.per_image],
        }

    def plot(self) -> Plot:
        """The headline figure of each way of predicting over the rate, in percent."""
        scoring = SCORINGS[self.task.kind]
        lines = []
        for way, label in _LABELS.items():
            rows = zip(self.results[BPP], self.results.get(column(way, scoring.headline), ()), strict=False)
            points = [(x, 100 * y) for x, y in rows if x is not None and y is not None]
            if points:
                lines.append(Line(label, [x for x, _ in points], [y for _, y in points]))
        original = self.original.get(scoring.headline)
        levels = [] if original is None else [(ORIGINAL_LABEL, 100 * original)]
        count = len(self.per_image)
        title = f"{self.name}, {count} image{'' if count == 1 else 's'}"
        return Plot(title, f"{scoring.heading}, %", lines, levels)


def accuracy(
    codec: Codec,
    task: str,
    data: str | Path | Sequence[tuple[ImageLike, Truth]],
    qualities: Sequence[float] | None = None,
    labels: str | Path | None = None,
    limit: int | None = None,
    ignored: Collection[int] = (IGNORED_LABEL,),
    reduce_zero_label: bool = False,
    with_pixels: bool = False,
    checkpoint: Path | None = None,
    progress: OnProgress | None = None,
) -> Accuracy:
    """Measures a task's accuracy: compresses labelled images, and predicts from the bytes, at each quality.

    Images are scaled and cut first as the task's preprocessing says, label maps likewise; rates are those of
    the files made from the result. An image that cannot be used is left out and listed.

    >>> import numpy as np
    >>> from polc_runtime import Codec
    >>> from polc_runtime.bench import accuracy
    >>> image = np.add.outer(np.arange(64), np.arange(96))[..., None].repeat(3, 2).astype(np.uint8)
    >>> with Codec.load("nano") as codec:
    ...     found = accuracy(codec, "cifar10", [(image, 3)], qualities=[4])
    >>> list(found.results)
    ['quality', 'bpp', 'bytes', 'top-1', 'top-5']

    Args:
        codec: the bundle on a backend.
        task: name of a task of the bundle.
        data: a folder, FOLDER/CLASS/IMAGE or of a segmentation FOLDER/images and FOLDER/masks (see
            `polc_runtime.datasets.find_samples`); or pairs of an image (file or uint8 [H,W,3]) and its truth
            (index of the class; of a segmentation a file of labels, or integers [H,W]).
        qualities: at which; None for every whole one of the bundle.
        labels: CSV file of file,class, for images in a folder without folders of classes.
        limit: most images to take, evenly from all there are.
        ignored: labels of pixels that do not count.
        reduce_zero_label: whether files of labels count classes from 1, and 0 does not count.
        with_pixels: predict from the decompressed and the original images too.
        checkpoint: predict by this checkpoint's PyTorch model on the same latents too, and compare.
        progress: receives a report after each image.

    Raises:
        UsageError: the bundle has no such task, or no pixel graph of it, or a quality is out of range.
        DataError: the folder or the labels have another layout.
        BackendUnavailable: a checkpoint is named, and PyTorch is not installed.
        CheckpointError: the checkpoint is of another codec, or cannot be read.
        NothingMeasured: no image could be used.
    """
    wanted = codec.bundle.manifest.task(task)
    samples = _samples(data, wanted, labels).limited(limit)
    reference = None
    if checkpoint is not None and codec.backend.name != RUNS_CHECKPOINT:
        reference = load_reference(checkpoint, wanted.name, codec.bundle.manifest.codec_id)
    ways = _predictors(codec, wanted, with_pixels, reference)
    meanings = label_map(len(wanted.classes), ignored, reduce_zero_label, NO_CLASS)
    run = _TaskRuns(codec, wanted, resolve_qualities(PolcCoder(codec), qualities), ways, meanings)
    steps = Steps(len(samples.samples), progress)
    for sample in samples.samples:
        notices = run.add(sample)
        steps.step(f"{sample.image.where}: done", notices)
    if not run.images:
        raise NothingMeasured(run.left_out)
    return Accuracy(
        name=f"{codec.bundle.name} {wanted.name}",
        description=f"task {wanted.name} ({wanted.family}) of the bundle {codec.bundle.name}, "
        f"on {codec.backend.name}",
        results=run.results(),
        original={} if run.original is None else run.scoring.figures(run.original),
        per_image=tuple(run.images),
        left_out=tuple(run.left_out),
        notices=samples.notices,
        task=wanted,
        iou={way: by_class(wanted.classes, found) for way, found in run.totals.items()}
        if wanted.kind == SEGMENTATION
        else {},
        ignored=tuple(sorted({*ignored, *((0,) if reduce_zero_label else ())})),
        tool=tool_facts(),
        codec=codec_facts(codec),
    )


def column(way: str, figure: str) -> str:
    """What results call a figure of a way of predicting: those from latents by their own name."""
    return figure if way == LATENT else f"{way}-{figure}"


def read_truth(truth: Truth, size: tuple[int, int], task: Task, meanings: Mapping[int, int]) -> Classes:
    """The class of an image, or those of its pixels, scaled and cut as the task's preprocessing says.

    Args:
        truth: as data sets have it.
        size: height and width of the image before preprocessing.
        task: says what is done, and how many classes there are.
        meanings: of `label_map`.

    Returns:
        [], or classes [H',W'], `NO_CLASS` where pixels do not count.

    Raises:
        DataError: it is not of the task's kind, the labels cannot be read, or one stands for no class.
        ImageError: they have another size than the image.
    """
    classes = len(task.classes)
    if task.kind != SEGMENTATION:
        if not isinstance(truth, int | np.integer) or not 0 <= truth < classes:
            raise DataError(f"expected the index of a class, 0..{classes - 1}, got {truth!r}")
        return np.array(truth, np.int64)
    if isinstance(truth, str | Path):
        name, labels = str(truth), read_labels(Path(truth))
    else:
        name, labels = "the labels", np.asarray(truth)
    if labels.shape != size:
        shape = "x".join(map(str, reversed(labels.shape)))
        raise ImageError(f"{name}: has {shape or 'no'} pixels, its image {size[1]}x{size[0]}")
    found = to_classes(labels, classes, meanings, NO_CLASS, name)
    void = found == NO_CLASS
    planes = np.stack([np.where(void, 0, found), void, void], -1).astype(np.uint8)
    planes = preprocess(planes, replace(task.preprocessing, interpolation="nearest"))
    return np.where(planes[..., 1], NO_CLASS, planes[..., 0].astype(np.int64))


class _TaskRuns:
    """Counts a task's predictions, one image after another.

    Attributes:
        images: each image's own numbers.
        left_out: images that could not be used.
        totals: counts of each way of predicting at each quality.
        original: counts of predictions from original pixels; None where there are none.
    """

    def __init__(
        self,
        codec: Codec,
        task: Task,
        qualities: Sequence[float],
        ways: Mapping[str, Predict],
        meanings: Mapping[int, int],
    ) -> None:
        self.codec, self.task, self.qualities, self.ways = codec, task, qualities, ways
        self.meanings = meanings
        self.scoring = SCORINGS[task.kind]
        self.images: list[ImageResult] = []
        self.left_out: list[LeftOut] = []
        self.totals: dict[str, list[Counts]] = {}
        self.original: Counts | None = None

    def add(self, sample: Sample) -> tuple[str, ...]:
        """Evaluates an image; one that cannot be read or does not fit the task is left out and listed.

        Returns:
            What had to be changed in the image to read it, in sentences.
        """
        try:
            image, notices = Original.read(sample.image)
            pixels = preprocess(image.pixels, self.task.preprocessing)
            height, width = pixels.shape[:2]
            check_size(self.task, self.codec.plan, (height, width))
            original_height, original_width = image.pixels.shape[:2]
            truth = read_truth(sample.truth, (original_height, original_width), self.task, self.meanings)
            counts, columns = self._at_all_qualities(pixels, truth)
            original = self._from_original(pixels, truth)
        except FAILURES as error:
            self.left_out.append(LeftOut.of(sample.image, error))
            return ()
        for way, found in counts.items():
            before = self.totals.get(way, [np.zeros_like(each) for each in found])
            self.totals[way] = [total + each for total, each in zip(before, found, strict=True)]
        if original is not None:
            self.original = original if self.original is None else self.original + original
        self.images.append(ImageResult(image.name, width, height, image.sha256, columns))
        return notices

    def results(self) -> Columns:
        """Rate and figures at each quality: rates are means over images, figures those of all together."""
        means = mean_columns(self.images)
        rates = {key: means[key] for key in (QUALITY, BPP, "bytes")}
        compared = {AGREEMENT: means[AGREEMENT], DIFFERENCE: self._largest()} if AGREEMENT in means else {}
        return {**rates, **self._figures(self.totals), **compared}

    def _largest(self) -> Column:
        columns = zip(*(result.columns[DIFFERENCE] for result in self.images), strict=True)
        return [max((value for value in values if value is not None), default=None) for values in columns]

    def _at_all_qualities(self, pixels: Pixels, truth: Classes) -> tuple[dict[str, list[Counts]], Columns]:
        """Counts of each way at each quality, and the image's own numbers."""
        counts: dict[str, list[Counts]] = {way: [] for way in self.ways}
        rates: list[Figures] = []
        agreements: list[Figures] = []
        for quality in self.qualities:
            data = self.codec.compress(pixels, quality)
            decoded = self.codec.decode(data)
            logits = {way: predict(decoded) for way, predict in self.ways.items()}
            for way, found in logits.items():
                counts[way].append(self.scoring.count(found, truth))
            area = pixels.shape[0] * pixels.shape[1]
            rates.append({QUALITY: quality, BPP: 8 * len(data) / area, "bytes": len(data)})
            same = agreement(logits[LATENT], logits[REFERENCE]) if REFERENCE in logits else {}
            agreements.append({**same})
        return counts, {**columns_of(rates), **self._figures(counts), **columns_of(agreements)}

    def _from_original(self, pixels: Pixels, truth: Classes) -> Counts | None:
        if PIXELS not in self.ways:
            return None
        return self.scoring.count(self.codec.infer_image(pixels, self.task.name), truth)

    def _figures(self, counts: Mapping[str, Sequence[Counts]]) -> Columns:
        """Figures of each way at each quality, as columns."""
        return {
            column(way, name): values
            for way, found in counts.items()
            for name, values in columns_of([self.scoring.figures(each) for each in found]).items()
        }


def _samples(
    data: str | Path | Sequence[tuple[ImageLike, Truth]], task: Task, labels: str | Path | None
) -> Samples:
    if isinstance(data, str | Path):
        return find_samples(data, task, labels)
    sources = [
        image if isinstance(image, np.ndarray) else Source(Path(image), Path(Path(image).name))
        for image, _ in data
    ]
    pairs = zip(name_images(sources), data, strict=True)
    return Samples([Sample(item, truth) for item, (_, truth) in pairs])


def _predictors(codec: Codec, task: Task, with_pixels: bool, reference: Backend | None) -> dict[str, Predict]:
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
