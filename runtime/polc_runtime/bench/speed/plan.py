"""What `polc-bench latency` measures one process for: a configuration, as the two processes hand it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...backends import CPU
from ...pictures.images import Pixels, read_image

SYNTHETIC = "synthetic"
_CELLS = (64, 16, 4, 1)


@dataclass(frozen=True)
class Picture:
    """What is coded.

    Attributes:
        name: in results.
        width: in pixels.
        height: in pixels.
        path: the file, None for a synthetic picture.
    """

    name: str
    width: int
    height: int
    path: str | None = None

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
        backend: name.
        device: where it is asked to run, cpu or cuda.
        checkpoint: file of the model's weights, for the backend that runs these; None for no such.
        attention: native or portable; None where the backend knows no such choice.
        precision: fp32 or fp16.
        threads: of one graph, and of matrix products.
        batch: pictures in one run of a graph.
        picture: what is coded.
        quality: of the compression.
        task: what is inferred; None for nothing.
        operations: of `OPERATIONS`.
        warmup: runs of each that are not counted, at least 1.
        repeats: runs of each that are.
        pipeline: numbers of images under way at once, for each of which the throughput is measured.
    """

    bundle: str
    backend: str
    device: str
    checkpoint: str | None
    attention: str | None
    precision: str
    threads: int
    batch: int
    picture: Picture
    quality: float
    task: str | None
    operations: tuple[str, ...]
    warmup: int
    repeats: int
    pipeline: tuple[int, ...] = ()

    @property
    def rounds(self) -> int:
        """Steps that progress is told in: one for the warm-up, each repeat, and each pipeline."""
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

    def to_dict(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """Reads `to_dict`'s data."""
        tuples = {name: tuple(data[name]) for name in ("operations", "pipeline")}
        return cls(**{**data, "picture": Picture(**data["picture"]), **tuples})


def synthetic_picture(height: int, width: int) -> Pixels:
    """Noise of four scales, the same every time, uint8 [H,W,3]: what is coded where no photo is named."""
    random = np.random.default_rng(0)
    total = np.zeros((height, width, 3), np.float32)
    for cell in _CELLS:
        shape = (-(-height // cell) + 1, -(-width // cell) + 1, 3)
        noise = Image.fromarray(random.integers(0, 256, shape, np.uint8))
        grown = noise.resize((cell * shape[1], cell * shape[0]), Image.Resampling.BICUBIC)
        total += cell**0.5 * np.asarray(grown, np.float32)[:height, :width]
    return np.rint(total / sum(cell**0.5 for cell in _CELLS)).astype(np.uint8)
