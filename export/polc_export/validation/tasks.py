"""Proves task graphs equal to their PyTorch models, on latents of a photo that the bundle itself coded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from polc_runtime import Bundle, Codec
from polc_runtime.backends import Backend, FloatArray
from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.bundle import SizeRule, Task
from polc_runtime.codec.latent import Decoded
from polc_runtime.codec.predict import check_size
from polc_runtime.pictures.images import Pixels, pad
from polc_runtime.pictures.preprocess import normalise

from ..checks import TOLERANCE, Checks, Report, crop, named_checks, relative_error

if TYPE_CHECKING:
    import polc

    from ..tasks import TaskExport

CASES = ((256, 256, 1.0), (256, 256, 8.0), (192, 320, 3.0), (320, 192, 5.5))
"""Height, width and quality of each comparison, where the task takes any size; the first two form a batch."""


def validate_tasks(
    bundle: Bundle,
    model: polc.CodecModel,
    tasks: Sequence[TaskExport],
    photo: Pixels,
    report: Report = lambda line: None,
    backend: Backend | None = None,
) -> Checks:
    """Every check of tasks against the PyTorch models they were made from.

    Args:
        bundle: the bundle that holds them.
        model: its codec.
        tasks: the tasks.
        photo: uint8 [H,W,3].
        report: called with a line for each task begun.
        backend: what runs the bundle's graphs, named in the checks; None for ONNX Runtime.

    Raises:
        UsageError: a task reads latents that no image is coded to.
    """
    from polc.backends.torch import TorchBackend

    checks = named_checks(backend)
    coded: dict[tuple[int, int, float], Decoded] = {}
    with Codec(bundle, backend or "onnxruntime") as codec:
        for task in tasks:
            report(f"comparing the task {task.entry.name}")
            latents = []
            for case in fitting_cases(task.entry.sizes, codec.plan):
                check_size(task.entry, codec.plan, case[:2])
                if case not in coded:
                    coded[case] = codec.decode(codec.compress(crop(photo, *case[:2]), case[2]))
                latents.append(coded[case])
            reference = TorchBackend(model, task.specs())
            compare_latents(checks, reference, codec.backend, task.entry, latents)
            compare_batch(checks, codec.backend, task.entry, latents[:2])
            if task.entry.pixels_graph is not None:
                images = [
                    normalise(pad(codec.synthesise(latent), codec.plan.pad), task.entry.preprocessing)
                    for latent in latents
                ]
                compare_pixels(checks, reference, codec.backend, task.entry.pixels_graph, images)
    return checks


def fitting_cases(sizes: SizeRule, plan: CodingPlan) -> Iterator[tuple[int, int, float]]:
    """`CASES` with heights and widths that a task and the codec take; all alike where only one fits."""
    stride = plan.latent.stride
    multiple = lcm(sizes.multiple * stride, plan.pad.multiple)
    for height, width, quality in CASES:
        if sizes.fixed is not None:
            height, width = (side * stride for side in sizes.fixed)
        else:
            least = max(sizes.minimum * stride, plan.pad.min)
            height, width = (-(-max(side, least) // multiple) * multiple for side in (height, width))
        yield height, width, quality


def compare_latents(
    checks: Checks, reference: Backend, tested: Backend, task: Task, latents: Sequence[Decoded]
) -> None:
    """Logits and top-1 of each latent."""
    for latent in latents:
        feeds = task_feeds([latent])
        compare_logits(checks, task.graph, reference.run(task.graph, feeds), tested.run(task.graph, feeds))


def compare_pixels(
    checks: Checks, reference: Backend, tested: Backend, graph: str, images: Sequence[FloatArray]
) -> None:
    """Logits and top-1 of each normalised image [1,3,H,W]."""
    for image in images:
        feeds = {"image": image}
        compare_logits(checks, graph, reference.run(graph, feeds), tested.run(graph, feeds))


def compare_batch(checks: Checks, tested: Backend, task: Task, latents: Sequence[Decoded]) -> None:
    """A batch that mixes qualities gives what its samples give alone."""
    alone = [tested.run(task.graph, task_feeds([latent]))["logits"] for latent in latents]
    batch = tested.run(task.graph, task_feeds(latents))["logits"]
    checks.add(f"{task.graph}.logits in a batch", relative_error(batch, np.concatenate(alone)))


def task_feeds(latents: Sequence[Decoded]) -> dict[str, FloatArray]:
    """Inputs of a task graph: a batch of latents that share a grid."""
    return {
        "y_hat": np.stack([latent.y_hat for latent in latents]),
        "quality": np.array([latent.header.quality for latent in latents], np.float32),
    }


def compare_logits(
    checks: Checks, graph: str, expected: dict[str, FloatArray], found: dict[str, FloatArray]
) -> None:
    """Values, and the class with the largest one; of a segmentation, at each pixel."""
    checks.add(f"{graph}.logits", relative_error(found["logits"], expected["logits"]))
    checks.add_agreement(
        f"{graph} top-1 agreement with PyTorch, ties aside", differing(found["logits"], expected["logits"])
    )


def differing(found: FloatArray, expected: FloatArray, tolerance: float = TOLERANCE) -> float:
    """Share of the predictions whose class differs, though the expected logits of the two do not tie.

    Two logits tie if each may move by `tolerance` and they then meet.

    Args:
        found: logits [B,classes,...].
        expected: logits of the same shape.
        tolerance: in units of the expected logits' standard deviation where that is above 1.
    """
    if found.shape != expected.shape:
        return float("nan")
    ours, theirs = (np.argmax(logits, 1, keepdims=True) for logits in (found, expected))
    lead = np.take_along_axis(expected, theirs, 1) - np.take_along_axis(expected, ours, 1)
    return float(np.mean(lead > 2 * tolerance * max(1.0, float(expected.std()))))
