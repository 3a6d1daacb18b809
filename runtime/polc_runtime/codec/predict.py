"""Predictions: runs a bundle's task graphs on decoded latents, or on pixels, and cuts what they give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..backends import Backend, FloatArray
from ..bitstream.container import Header
from ..bitstream.plan import CodingPlan
from ..bundle import SEGMENTATION, Manifest, Task
from ..errors import BundleError, PolcError, UsageError
from ..pictures.images import Pixels, pad
from ..pictures.preprocess import normalise
from .latent import Decoded

Size = tuple[int, int]
"""Height and width of an image."""


class Predictor:
    """Runs the tasks of one bundle; holds no state between calls.

    Args:
        backend: runs task_NAME and pixels_NAME.
        manifest: says what tasks there are.
    """

    def __init__(self, backend: Backend, manifest: Manifest) -> None:
        self.backend = backend
        self.manifest = manifest
        self.plan = manifest.plan

    def from_latents(self, decoded: Sequence[Decoded], task: str) -> list[FloatArray]:
        """Logits of latents that share a grid, in one batch; shapes as in `Codec.infer`.

        Raises:
            UsageError: there is no such task, or the latents do not fit it.
        """
        entry = self.manifest.task(task)
        headers = [each.header for each in decoded]
        for header in headers:
            check_size(entry, self.plan, (header.height, header.width))
        feeds = {
            "y_hat": np.stack([each.y_hat for each in decoded]),
            "quality": np.array([header.quality for header in headers], np.float32),
        }
        return self._run(entry, entry.graph, feeds, [(header.height, header.width) for header in headers])

    def from_image(self, image: Pixels, task: str) -> FloatArray:
        """Logits of an image, uint8 [H,W,3], by the model's own stem; it is padded as the codec does.

        Raises:
            UsageError: there is no such task, no pixel graph of it, or the image does not fit it.
        """
        entry = self.pixel_task(task)
        size = (image.shape[0], image.shape[1])
        check_size(entry, self.plan, size)
        feeds = {"image": normalise(pad(image, self.plan.pad), entry.preprocessing)}
        return self._run(entry, str(entry.pixels_graph), feeds, [size])[0]

    def pixel_task(self, task: str) -> Task:
        """A task that predicts from pixels too.

        Raises:
            UsageError: there is no such task, or no pixel graph of it.
        """
        entry = self.manifest.task(task)
        if entry.pixels_graph is None:
            raise UsageError(
                f"the bundle {self.manifest.name} has no pixel graph of the task {task}: export it "
                "with_pixels=True"
            )
        return entry

    def in_batches(
        self,
        files: Sequence[bytes],
        header: Callable[[bytes], Header],
        decode: Callable[[bytes], Decoded],
        task: str,
        batch_size: int,
    ) -> list[FloatArray]:
        """Logits of many `.polc` files, in their order; those whose latents share a grid run together.

        Args:
            files: their bytes.
            header: reads a file's header.
            decode: decodes a file.
            task: name of the task.
            batch_size: most latents to run, and to hold, at once.

        Raises:
            UsageError: there is no such task, a file does not fit it, or `batch_size` is not positive.
            PolcError: what `header` and `decode` raise.
        """
        entry = self.manifest.task(task)
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, got {batch_size}")
        grids: defaultdict[Size, list[int]] = defaultdict(list)
        for index, data in enumerate(files):
            with _naming(index, len(files)):
                found = header(data)
                check_size(entry, self.plan, (found.height, found.width))
            grids[self.plan.latent_size(found.height, found.width)].append(index)
        logits: dict[int, FloatArray] = {}
        for batch in (part for group in grids.values() for part in _parts(group, batch_size)):
            latents = []
            for index in batch:
                with _naming(index, len(files)):
                    latents.append(decode(files[index]))
            logits.update(zip(batch, self.from_latents(latents, task), strict=True))
        return [logits[index] for index in range(len(files))]

    def _run(
        self, task: Task, graph: str, feeds: dict[str, FloatArray], sizes: Sequence[Size]
    ) -> list[FloatArray]:
        """Each sample's logits, a segmentation's cut to its image."""
        logits = self.backend.run(graph, feeds)["logits"]
        expected: tuple[int, ...] = (len(sizes), len(task.classes))
        if task.kind == SEGMENTATION:
            expected += tuple(side + task.sizes.extra for side in self.plan.padded_size(*sizes[0]))
        if logits.shape != expected:
            raise BundleError(
                f"{graph} gives logits of the shape {list(logits.shape)}, the manifest makes it "
                f"{list(expected)}"
            )
        if task.kind != SEGMENTATION:
            return list(logits)
        return [part[:, :height, :width] for part, (height, width) in zip(logits, sizes, strict=True)]


def check_size(task: Task, plan: CodingPlan, size: Size) -> None:
    """Raises UsageError unless a task reads images of a height and width; says what it reads."""
    height, width = plan.padded_size(*size)
    stride = plan.latent.stride
    if task.sizes.admits(height // stride, width // stride):
        return
    scales = task.preprocessing.resize is not None or task.preprocessing.crop is not None
    hint = "; preprocess() scales and crops images for it" if scales else ""
    raise UsageError(
        f"the task {task.name} reads images {task.sizes.wanted(stride)}; this one has "
        f"{size[1]}x{size[0]} pixels, padded to {width}x{height}{hint}"
    )


def _parts(indexes: list[int], most: int) -> Iterator[list[int]]:
    return (indexes[start : start + most] for start in range(0, len(indexes), most))


@contextmanager
def _naming(index: int, count: int) -> Iterator[None]:
    """Says in an error which of several files it is about."""
    try:
        yield
    except PolcError as error:
        if count == 1:
            raise
        raise type(error)(f"file {index} of {count} (counted from 0): {error}") from None
