"""What `polc-bench accuracy` does: evaluates, writes and prints."""

from __future__ import annotations

import json
from typing import Any

import click

from ...backends.facts import tool_facts
from ...backends.reference import load_reference
from ...bundle import SEGMENTATION, Task
from ...cli.bench.accuracy import Request
from ...cli.bench.options import outputs, write
from ...cli.bench.text import columns_text, pictures, rows_of, table_csv
from ...cli.console import bar_wanted, progress, say
from ...codec import Codec
from ...errors import DataError, UsageError
from ...metrics.scores import by_class
from ..failures import list_failures
from ..plot import Line, Plot, check_plot, draw
from .codecs import PolcCoder, codec_facts, settle_qualities
from .curves import BPP, QUALITY
from .evaluate import LATENT, PIXELS, REFERENCE, Evaluation, column, predictors
from .measure import picture_names
from .predictions import Earlier
from .samples import Samples, find_samples

ORIGINAL = "original"
RUNS_CHECKPOINT = "torch"
"""The backend that runs the checkpoint's model itself."""
_LABELS = {
    LATENT: "from latents",
    PIXELS: "from decompressed pixels",
    REFERENCE: "from latents, PyTorch",
    ORIGINAL: "from original pixels",
}

Document = dict[str, Any]


def run_accuracy(request: Request) -> int:
    """Does what the command line asks for; returns the exit code.

    Raises:
        PolcError: an option cannot be followed, or nothing could be evaluated.
    """
    outputs([request.output, request.csv, request.plot], request.force)
    if request.plot is not None:
        check_plot(request.plot)
    if request.checkpoint is not None and request.agreement_with is not None:
        raise UsageError("name --checkpoint or --agreement-with: predictions are compared with one of them")
    with request.codec_choice.load(request.checkpoint) as codec:
        task = codec.bundle.manifest.task(request.task)
        samples = find_samples(request.folder, task, request.labels).spread(request.limit)
        evaluation = _evaluate(request, codec, task, samples)
        document = _document(evaluation, samples)
    _write(request, evaluation, document)
    for notice in samples.notices:
        say(f"notice: {notice}")
    click.echo(
        json.dumps(document, indent=2, allow_nan=False) if request.reporting.as_json else _text(document)
    )
    list_failures(evaluation.failures)
    return 2 if evaluation.failures else 0


def _evaluate(request: Request, codec: Codec, task: Task, samples: Samples) -> Evaluation:
    reference = None
    if request.checkpoint is not None and codec.backend.name != RUNS_CHECKPOINT:
        reference = load_reference(request.checkpoint, task.name, codec.bundle.manifest.codec_id)
    ways = predictors(codec, task, request.with_pixels, reference)
    qualities = settle_qualities(PolcCoder(codec), request.qualities)
    earlier = None
    if request.agreement_with is not None:
        earlier = Earlier.read(request.agreement_with, task, codec.bundle.manifest.codec_id.hex())
    first_class = int(request.reduce_zero_label)
    evaluation = Evaluation(codec, task, qualities, ways, request.ignored, first_class, earlier)
    names = picture_names([sample.source for sample in samples.samples])
    verbose = request.reporting.verbose
    with_bar = bar_wanted(len(samples.samples), verbose)
    with progress(samples.samples, "accuracy", with_bar) as items:
        for sample in items:
            for notice in evaluation.add(sample, names[sample.source]):
                say(f"notice: {sample.source.name}: {notice}", over_bar=with_bar)
            if verbose:
                say(f"{sample.source.name}: done")
    if not evaluation.images:
        list_failures(evaluation.failures)
        raise DataError("no picture could be evaluated")
    if earlier is not None:
        earlier.check_compared()
    return evaluation


def _document(evaluation: Evaluation, samples: Samples) -> Document:
    codec, task = evaluation.codec, evaluation.task
    document = {
        "command": "accuracy",
        "name": f"{codec.bundle.name} {task.name}",
        "description": f"task {task.name} ({task.family}) of the bundle {codec.bundle.name}, "
        f"on {codec.backend.name}",
        "results": evaluation.results(),
        ORIGINAL: evaluation.original_figures(),
        "images": len(evaluation.images),
        "failed": evaluation.failures,
        "notices": list(samples.notices),
        "task": {
            "name": task.name,
            "family": task.family,
            "kind": task.kind,
            "classes": len(task.classes),
            "preprocessing": task.preprocessing.to_dict(),
        },
        "tool": tool_facts(),
        "codec": codec_facts(codec),
    }
    if task.kind == SEGMENTATION:
        document["iou"] = {way: by_class(task.classes, found) for way, found in evaluation.totals.items()}
        document["ignored"] = sorted({*evaluation.ignored, *range(evaluation.first_class)})
    return {**document, "per_image": [result.to_dict() for result in evaluation.images]}


def _text(document: Document) -> str:
    lines = [
        f"{document['description']}, {pictures(document['images'])}",
        columns_text(document["results"], (PIXELS, REFERENCE)),
    ]
    if document[ORIGINAL]:
        lines += [
            _LABELS[ORIGINAL],
            columns_text({name: [value] for name, value in document[ORIGINAL].items()}),
        ]
    return "\n".join(lines)


def _write(request: Request, evaluation: Evaluation, document: Document) -> None:
    if request.output is not None:
        text = json.dumps(document, indent=2, allow_nan=False)
        write(request.output, f"{text}\n".encode(), request.force)
    if request.csv is not None:
        rows: list[dict[str, Any]] = [*rows_of(document["results"])]
        if document[ORIGINAL]:
            rows.append({QUALITY: ORIGINAL, **document[ORIGINAL]})
        write(request.csv, table_csv(rows), request.force)
    if request.plot is not None:
        write(request.plot, draw(_plot(evaluation, document), request.plot.suffix), request.force)


def _plot(evaluation: Evaluation, document: Document) -> Plot:
    """The headline figure of each way of predicting over the rate, in percent."""
    results, scoring = document["results"], evaluation.scoring
    lines = []
    for way in evaluation.ways:
        values = results[column(way, scoring.headline)]
        points = [(x, 100 * y) for x, y in zip(results[BPP], values, strict=True) if y is not None]
        lines.append(Line(_LABELS[way], [x for x, _ in points], [y for _, y in points]))
    original = document[ORIGINAL].get(scoring.headline)
    levels = [] if original is None else [(_LABELS[ORIGINAL], 100 * original)]
    title = f"{document['name']}, {pictures(document['images'])}"
    return Plot(title, f"{scoring.heading}, %", lines, levels)
