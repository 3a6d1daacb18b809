"""What the golden files of the bitstream share: where they lie, and how to ask polc for a file's symbols."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plain_decoder import Bundle, Decoded, step_views

from polc_runtime import Codec
from polc_runtime.backends import Backend, FloatArray

FOLDER = Path(__file__).parent
RECORD = FOLDER / "golden.json"
BUNDLE = "nano"
"""The bundle that the golden files were made with (README.md says what to do when it is replaced)."""


def load_record() -> dict[str, Any]:
    """What `golden.json` says."""
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def golden_file(name: str) -> bytes:
    """The bytes of a golden file."""
    return (FOLDER / f"{name}.polc").read_bytes()


def symbol_hash(symbols: np.ndarray) -> str:
    """SHA-256 of symbols as little-endian int32."""
    return hashlib.sha256(symbols.astype("<i4").tobytes()).hexdigest()


def plain_bundle(codec: Codec) -> Bundle:
    """The codec's bundle, as the plain decoder reads it."""
    return Bundle(codec.bundle.path)


class RecordingBackend:
    """A codec's backend that keeps z_hat and the means: with them, y_hat gives the decoded symbols away."""

    name = "recording"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.z_hat = np.empty(0, np.float32)
        self.means: list[FloatArray] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        outputs = self.backend.run(graph, inputs)
        if graph == "hyper_synthesis":
            self.z_hat, self.means = inputs["z_hat"][0], []
        if "means" in outputs:
            self.means.append(outputs["means"].ravel())
        return outputs

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return self.backend.describe()

    def close(self) -> None:
        """Leaves the wrapped backend open: it is the codec's."""


def polc_symbols(codec: Codec, data: bytes) -> tuple[list[np.ndarray], FloatArray]:
    """The symbols of z and of the nine steps that polc decodes, and its y_hat.

    They are what polc's y_hat lies above its means by, which is exact for symbols below 2^22.
    """
    backend = RecordingBackend(codec.backend)
    y_hat = codec.over(backend).latent(data)
    medians = codec.bundle.entropy_tables().medians[:, None, None]
    symbols = [np.rint(backend.z_hat - medians).ravel()]
    for step, means in enumerate(backend.means):
        values = np.concatenate([view.ravel() for view in step_views(y_hat, step)])
        symbols.append(np.rint(values - means))
    return [part.astype("<i4") for part in symbols], y_hat


def describe(data: bytes, decoded: Decoded) -> dict[str, Any]:
    """A golden file's entry in `golden.json`."""
    container = decoded.container
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "fingerprint": container.fingerprint,
        "codec_id": container.codec_id,
        "width": container.width,
        "height": container.height,
        "quality": container.quality,
        "sections": [[kind, len(content)] for kind, content in container.sections],
        "symbols": [symbol_hash(part) for part in decoded.symbols],
    }
