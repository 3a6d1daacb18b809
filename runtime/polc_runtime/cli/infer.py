"""`polc infer`: predictions from `.polc` files, printed, and maps of classes as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..files.inputs import STANDARD, Source, expand
from ..files.outputs import Job, Target, check_distinct, plan
from .console import printable
from .jobs import POLC, header_facts, run_coding, target_of
from .options import CodecChoice, Reporting, codec_choice, force, inputs, recursive, reporting
from .overlap import Turn
from .runner import Facts

if TYPE_CHECKING:
    from ..backends import FloatArray
    from ..bundle import Task
    from ..codec import Codec
    from ..codec.latent import Decoded
    from ..pictures.classmap import ClassMap
    from ..pictures.images import Pixels

MAP_SUFFIX = ".png"


@dataclass(frozen=True)
class Pictures:
    """Where one segmentation of one file goes: the map of classes, and its colours over the image."""

    map: Target
    overlay: Target


@dataclass(frozen=True)
class Request:
    """What is asked of every file.

    Attributes:
        tasks: which predictions.
        top: how many classes of a classification are told.
        via_pixels: predict from the decompressed image instead of the latent.
        pictures: by job and task, what is written; empty without an output.
        force: overwrite files that exist.
    """

    tasks: tuple[Task, ...]
    top: int
    via_pixels: bool
    pictures: Mapping[Job, Mapping[str, Pictures]]
    force: bool


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
    help="How many classes of a classification to tell.",
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
    with codec_choice.load() as codec:
        tasks = tuple(codec.bundle.manifest.task(name) for name in dict.fromkeys(names))
        if via_pixels:
            for task in tasks:
                codec.predictor.pixel_task(task.name)
        jobs = [Job(source) for source in sources]
        pictures = {} if output is None else _plan_pictures(sources, output, tasks)
        request = Request(tasks, top, via_pixels, pictures, force)
        work = partial(_infer_one, codec, request)
        return run_coding("infer", jobs, work, reporting, codec, codec_choice, _text)


def _plan_pictures(
    sources: list[Source], output: str, tasks: Sequence[Task]
) -> dict[Job, dict[str, Pictures]]:
    """What is written for each job and segmentation.

    With several segmentations their names follow the file's.

    Raises:
        UsageError: no task gives a map, the output is no PNG, or two inputs would write one file.
    """
    from ..bundle import SEGMENTATION
    from ..pictures.classmap import check_palette

    segmentations = [task for task in tasks if task.kind == SEGMENTATION]
    if not segmentations:
        raise UsageError("-o takes the maps of a segmentation, and no such task is named; leave it out")
    if output == STANDARD:
        raise UsageError(
            "predictions are printed on standard output; give -o a file or a folder for the maps"
        )
    for task in segmentations:
        check_palette(len(task.classes))
    pictures = {}
    for planned in plan(sources, output, {POLC}, MAP_SUFFIX):
        names = [f"_{task.name}" if len(segmentations) > 1 else "" for task in segmentations]
        pictures[Job(planned.source)] = {
            task.name: _pictures(planned, name) for task, name in zip(segmentations, names, strict=True)
        }
    check_distinct(
        [
            Job(job.source, target)
            for job, by_task in pictures.items()
            for each in by_task.values()
            for target in (each.map, each.overlay)
        ]
    )
    return pictures


def _pictures(job: Job, addition: str) -> Pictures:
    target = target_of(job)
    path = target.path or Path()
    if path.suffix.lower() != MAP_SUFFIX:
        raise UsageError(f"{path}: maps of classes are written as {MAP_SUFFIX}")

    def named(ending: str) -> Target:
        return Target(path.with_name(f"{path.stem}{addition}{ending}{path.suffix}"), target.make_folders)

    return Pictures(named(""), named("_overlay"))


def _infer_one(codec: Codec, request: Request, job: Job, turn: Turn) -> Facts:
    from ..pictures.classmap import overlay

    pictures = request.pictures.get(job, {})
    for each in pictures.values():
        each.map.check(request.force)
        each.overlay.check(request.force)
    data = job.source.read(codec.limits, "max_bytes")
    facts = header_facts(data, codec.limits)
    with turn.networks():
        decoded = codec.decode(data)
        image = codec.synthesise(decoded) if request.via_pixels or pictures else None
        seen = [_seen(codec, task, decoded, image, request) for task in request.tasks]
    for task, (prediction, classes) in zip(request.tasks, seen, strict=True):
        if classes is not None and image is not None and task.name in pictures:
            drawn = overlay(image, classes, task.classes)
            prediction |= _write(pictures[task.name], classes, drawn, turn, request.force)
    return {**facts, "predictions": [prediction for prediction, _ in seen]}


def _seen(
    codec: Codec, task: Task, decoded: Decoded, image: Pixels | None, request: Request
) -> tuple[Facts, ClassMap | None]:
    """What one task predicts, and the map of classes if it is a segmentation."""
    from ..bundle import SEGMENTATION
    from ..pictures.classmap import class_map

    if request.via_pixels and image is not None:
        logits = codec.infer_image(image, task.name)
    else:
        logits = codec.infer_latent(decoded, task.name)
    facts: Facts = {
        "task": task.name,
        "kind": task.kind,
        "from": "pixels" if request.via_pixels else "latent",
    }
    if task.kind != SEGMENTATION:
        return facts | _classification(task, logits, request.top), None
    classes = class_map(logits)
    return facts | _segmentation(task, classes), classes


def _classification(task: Task, logits: FloatArray, top: int) -> Facts:
    """The most likely classes."""
    import numpy as np

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
    from ..pictures.classmap import regions

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


def _write(pictures: Pictures, classes: ClassMap, overlay: Pixels, turn: Turn, force: bool) -> Facts:
    """Writes the pictures of one segmentation; where they are."""
    from ..pictures.classmap import encode_map
    from ..pictures.images import encode_image

    turn.write(pictures.map, encode_map(classes), force)
    turn.write(pictures.overlay, encode_image(overlay), force)
    return {"map": pictures.map.name, "overlay": pictures.overlay.name}


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
