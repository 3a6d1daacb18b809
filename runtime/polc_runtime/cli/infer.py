"""`polc infer`: predictions from `.polc` files, printed, and maps of classes as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..backends import FloatArray
from ..bundle import SEGMENTATION, Task
from ..codec import Codec
from ..codec.latent import Decoded
from ..codec.pipeline import NetworkSlots
from ..errors import UsageError
from ..files.inputs import STANDARD, Source, expand
from ..files.outputs import Job, Target, check_distinct, plan
from ..pictures.classmap import ClassMap, check_palette, class_map, encode_map, overlay, regions
from ..pictures.images import Pixels, encode_image
from .console import printable
from .jobs import POLC, run_coding, target_of
from .options import CodecChoice, Reporting, codec_choice, force, inputs, recursive, reporting
from .runner import Facts, coded_facts, read_input

MAP_SUFFIX = ".png"


@dataclass(frozen=True)
class MapTargets:
    """Where one segmentation of one file goes: the map of classes, and its colours over the image."""

    map: Target
    overlay: Target


@dataclass(frozen=True)
class Predictions:
    """What to predict from every file.

    Attributes:
        tasks: which predictions.
        top: how many classes of a classification to report.
        via_pixels: predict from the decompressed image instead of the latent.
        maps: by job and task, what is written; empty without an output.
    """

    tasks: tuple[Task, ...]
    top: int
    via_pixels: bool
    maps: Mapping[Job, Mapping[str, MapTargets]]


@click.command(
    epilog="""\b
Examples:
  polc infer photo.polc --task convnext_tiny
  polc infer coded/ --recursive --task convnext_tiny --top 1 --json > predictions.json
  polc infer street.polc --task pspnet50 -o street.png
  polc infer photo.polc --task convnext_tiny --task pspnet50 --via-pixels
  cat photo.polc | polc infer - --task convnext_tiny"""
)
@inputs("FILES")
@click.option(
    "--task",
    "names",
    metavar="NAME",
    multiple=True,
    required=True,
    help="A task of the bundle ('polc info BUNDLE' lists them). Repeatable.",
)
@click.option(
    "--top",
    metavar="K",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How many classes of a classification to report.",
)
@click.option(
    "--via-pixels",
    is_flag=True,
    help="Predict from the decompressed image, for comparison; needs a bundle made --with-pixels.",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Write each segmentation as OUT.png, a palette image of class indexes, and OUT_overlay.png. "
    "A file for one input, a folder for several.",
)
@force
@recursive
@codec_choice
@reporting
def infer(
    arguments: tuple[str, ...],
    names: tuple[str, ...],
    top: int,
    via_pixels: bool,
    output: str | None,
    force: bool,
    recursive: bool,
    codec_choice: CodecChoice,
    reporting: Reporting,
) -> int:
    """Predict from .polc files: run vision models on the decoded latent, without making the image.

    FILES are .polc files, folders, or '-'. A classification prints its most likely classes with their
    probabilities, a segmentation the classes it finds with their share of the pixels.
    """
    sources = expand(arguments, {POLC}, recursive)
    slots = NetworkSlots()
    with codec_choice.pool(slots, encodes=True) as codecs:
        codec = codecs.to_encode()
        tasks = tuple(codec.bundle.manifest.task(name) for name in dict.fromkeys(names))
        if via_pixels:
            for task in tasks:
                codec.predictor.pixel_task(task.name)
        maps = {} if output is None else _plan_maps(sources, output, tasks, force)
        work = partial(_infer_one, codec, slots, Predictions(tasks, top, via_pixels, maps))
        jobs = [Job(source) for source in sources]
        return run_coding("infer", jobs, work, reporting, codec, slots, _text)


def _plan_maps(
    sources: list[Source], output: str, tasks: Sequence[Task], force: bool
) -> dict[Job, dict[str, MapTargets]]:
    """What is written for each job and segmentation; with several segmentations their names are appended.

    Raises:
        UsageError: no task is a segmentation, the output is not a PNG, or two inputs would write one file.
    """
    segmentations = [task for task in tasks if task.kind == SEGMENTATION]
    if not segmentations:
        raise UsageError("-o needs a segmentation task; none of the named tasks is one")
    if output == STANDARD:
        raise UsageError(
            "predictions are printed on standard output; give -o a file or a folder for the maps"
        )
    for task in segmentations:
        check_palette(len(task.classes))
    additions = {task.name: f"_{task.name}" if len(segmentations) > 1 else "" for task in segmentations}
    maps = {
        Job(planned.source): {name: _targets(planned, addition) for name, addition in additions.items()}
        for planned in plan(sources, output, {POLC}, MAP_SUFFIX, force)
    }
    check_distinct(
        [
            Job(job.source, target)
            for job, by_task in maps.items()
            for each in by_task.values()
            for target in (each.map, each.overlay)
        ]
    )
    return maps


def _targets(job: Job, addition: str) -> MapTargets:
    target = target_of(job)
    path = target.path or Path()
    if path.suffix.lower() != MAP_SUFFIX:
        raise UsageError(f"{path}: maps of classes are written as {MAP_SUFFIX}")
    paths = [path.with_name(f"{path.stem}{addition}{end}{path.suffix}") for end in ("", "_overlay")]
    return MapTargets(*(Target(path, target.make_folders, target.force) for path in paths))


def _infer_one(codec: Codec, slots: NetworkSlots, wanted: Predictions, job: Job) -> Facts:
    maps = wanted.maps.get(job, {})
    for each in maps.values():
        each.map.check()
        each.overlay.check()
    data = read_input(job, codec.limits)
    with slots.item():
        decoded = codec.decode(data)
        image = codec.synthesise(decoded) if wanted.via_pixels or maps else None
        found = [_predict(codec, task, decoded, image, wanted) for task in wanted.tasks]
    predictions = []
    for task, (prediction, classes) in zip(wanted.tasks, found, strict=True):
        if classes is not None and image is not None and task.name in maps:
            drawn = overlay(image, classes, task.classes)
            prediction |= _write(maps[task.name], classes, drawn)
        predictions.append(prediction)
    return {**coded_facts(decoded.header, len(data)), "predictions": predictions}


def _predict(
    codec: Codec, task: Task, decoded: Decoded, image: Pixels | None, wanted: Predictions
) -> tuple[Facts, ClassMap | None]:
    """What one task predicts, and the map of classes if it is a segmentation."""
    if wanted.via_pixels and image is not None:
        logits = codec.infer_image(image, task.name)
    else:
        logits = codec.infer_latent(decoded, task.name)
    facts: Facts = {
        "task": task.name,
        "kind": task.kind,
        "from": "pixels" if wanted.via_pixels else "latent",
    }
    if task.kind != SEGMENTATION:
        return facts | _classification(task, logits, wanted.top), None
    classes = class_map(logits)
    return facts | _segmentation(task, classes), classes


def _classification(task: Task, logits: FloatArray, top: int) -> Facts:
    """The most likely classes."""
    odds = np.exp(logits.astype(np.float64) - logits.max())
    probabilities = odds / odds.sum()
    best = np.argsort(-logits, kind="stable")[:top]
    return {
        "top": [
            {
                "index": int(index),
                "name": task.classes[index],
                "probability": float(probabilities[index]),
                "logit": float(logits[index]),
            }
            for index in best
        ]
    }


def _segmentation(task: Task, classes: ClassMap) -> Facts:
    """The classes that are present."""
    return {
        "classes": [
            {
                "index": region.index,
                "name": task.classes[region.index],
                "pixels": region.pixels,
                "share": region.pixels / classes.size,
            }
            for region in regions(classes)
        ]
    }


def _write(targets: MapTargets, classes: ClassMap, overlay: Pixels) -> Facts:
    """Writes one segmentation; returns where."""
    targets.map.write(encode_map(classes))
    targets.overlay.write(encode_image(overlay))
    return {"map": targets.map.name, "overlay": targets.overlay.name}


def _text(result: Facts) -> str:
    lines = [printable(result["input"])]
    for prediction in result["predictions"]:
        written = [prediction[key] for key in ("map", "overlay") if key in prediction]
        arrow = f" -> {', '.join(written)}" if written else ""
        source = ", from pixels" if prediction["from"] == "pixels" else ""
        lines.append(f"  {prediction['task']}{source}{printable(arrow)}")
        lines += [_row(entry) for entry in prediction.get("top", prediction.get("classes", ()))]
    return "\n".join(lines)


def _row(entry: Mapping[str, Any]) -> str:
    share = entry["probability"] if "probability" in entry else entry["share"]
    return f"    {100 * share:6.2f} %  {printable(entry['name'])}"
