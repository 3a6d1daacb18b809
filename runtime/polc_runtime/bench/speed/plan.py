"""What is measured: configurations, each of which one process measures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...backends import CPU
from ...backends.op_library import find_cuda_ops, find_op_library
from ...errors import UsageError
from ...files.inputs import Source
from ...pictures.images import Pixels, read_image
from ...pictures.listing import find_images

COMPRESS, DECOMPRESS, INFER = OPERATIONS = ("compress", "decompress", "infer")
NATIVE, PORTABLE = ATTENTIONS = ("native", "portable")
DEFAULT_SIZES = ((768, 512),)
SYNTHETIC = "synthetic"
_CELLS = (64, 16, 4, 1)

_OPERATORS = {"onnxruntime": find_op_library, "onnxruntime-cuda": find_cuda_ops}
"""Backends that run the native operators of a library which may be missing."""
_CHOOSE_ATTENTION = ("tensorrt", "torch")
"""Other backends that run with and without their own kernel of the attention."""


@dataclass(frozen=True)
class TimedImage:
    """What is coded.

    Attributes:
        name: in results.
        width: in pixels.
        height: in pixels.
        path: the file; None for a synthetic image.
    """

    name: str
    width: int
    height: int
    path: str | None = None

    @property
    def megapixels(self) -> float:
        """Its size, before padding."""
        return self.width * self.height / 1e6

    def read(self) -> Pixels:
        """Its pixels, uint8 [H,W,3]."""
        if self.path is not None:
            return read_image(Path(self.path)).pixels
        return synthetic_picture(self.height, self.width)


@dataclass(frozen=True)
class Configuration:
    """What one process measures.

    Attributes:
        bundle: its folder.
        device: where the backend is asked to run, cpu or cuda.
        checkpoint: file of the model's weights, for the backend that runs these.
        attention: native or portable; None where the backend has no such choice.
        threads: of one graph, and of matrix products.
        batch: images in one run of a graph.
        task: what is inferred; None for nothing.
        operations: of `OPERATIONS`.
        warmup: runs of each that are not counted, at least 1.
        repeats: runs of each that are.
        pipeline: numbers of images at once, for each of which the throughput is measured.
    """

    bundle: str
    backend: str
    device: str
    checkpoint: str | None
    attention: str | None
    precision: str
    threads: int
    batch: int
    picture: TimedImage
    quality: float
    task: str | None
    operations: tuple[str, ...]
    warmup: int
    repeats: int
    pipeline: tuple[int, ...] = ()

    @property
    def rounds(self) -> int:
        """Steps of progress: one for the warm-up, each repeat, and each pipeline."""
        return 1 + self.repeats + len(self.pipeline)

    @property
    def title(self) -> str:
        """What messages and tables call it."""
        size = f"{self.picture.width}x{self.picture.height}"
        picture = size if self.picture.path is None else f"{self.picture.name} {size}"
        attention = f", {self.attention} attention" if self.attention else ""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        device = "" if self.device == CPU else f" on {self.device}"
        return f"{picture}, {self.backend}{device}{attention}, {threads}{batch}"


def choose_operations(wanted: Sequence[str] | None, task: str | None) -> tuple[str, ...]:
    """The operations to measure: those asked for, else all, `infer` only with a task.

    Raises:
        UsageError: an operation is unknown, or `infer` has no task.
    """
    if wanted is None:
        return (COMPRESS, DECOMPRESS, *([INFER] if task else []))
    _check_names("operations", wanted, OPERATIONS)
    if INFER in wanted and task is None:
        raise UsageError("the operation infer needs a task")
    return tuple(wanted)


def timed_images(images: Sequence[str | Path], sizes: Sequence[tuple[int, int]] | None) -> list[TimedImage]:
    """The files at their own sizes, or a synthetic image of each size.

    Raises:
        UsageError: both are given, or standard input is named.
        PolcError: a file cannot be read.
    """
    if not images:
        return [TimedImage(SYNTHETIC, width, height) for width, height in sizes or DEFAULT_SIZES]
    if sizes is not None:
        raise UsageError("images have sizes of their own: give images or sizes, not both")
    found = []
    for item in find_images(list(images)):
        path = item.source.path if isinstance(item.source, Source) else None
        if path is None:
            raise UsageError("several processes read an image, so it cannot come from standard input")
        height, width = read_image(path).pixels.shape[:2]
        found.append(TimedImage(str(path), width, height, str(path.resolve())))
    return found


def choose_attentions(backend: str, wanted: Sequence[str] | None) -> tuple[str | None, ...]:
    """What to run the attention with; None for the backend's choice, or where it has none.

    Raises:
        UsageError: an attention is unknown, or the native one is missing here.
    """
    _check_names("attentions", wanted or (), ATTENTIONS)
    if backend not in _OPERATORS:
        return tuple(wanted) if wanted is not None and backend in _CHOOSE_ATTENTION else (None,)
    library = _OPERATORS[backend]()
    if wanted is None:
        return (NATIVE, PORTABLE) if library.registers else (PORTABLE,)
    if NATIVE in wanted and not library.registers:
        raise UsageError(f"the native attention cannot be measured here: {library.reason}")
    return tuple(wanted)


def synthetic_picture(height: int, width: int) -> Pixels:
    """Noise of four scales, the same every time, uint8 [H,W,3]: what is coded where no image is named."""
    random = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for cell in _CELLS:
        shape = (-(-height // cell) + 1, -(-width // cell) + 1, 3)
        noise = Image.fromarray(random.integers(0, 256, shape, np.uint8))
        grown = noise.resize((cell * shape[1], cell * shape[0]), Image.Resampling.BICUBIC)
        total += cell**0.5 * np.asarray(grown, np.float32)[:height, :width]
    return np.rint(total / sum(cell**0.5 for cell in _CELLS)).astype(np.uint8)


def _check_names(what: str, wanted: Collection[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise UsageError(f"{what}: expected some of {', '.join(known)}; got {name!r}")
