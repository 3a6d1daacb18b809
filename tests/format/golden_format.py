"""What the golden files of the bitstream share: where they lie, and how to ask polc for a file's symbols."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from plain_decoder import Bundle, Decoded
from plain_plan import joined, step_views

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
    """A codec's backend that keeps what goes in and comes out: it gives the decoded symbols away."""

    name = "recording"

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.inputs: dict[str, Mapping[str, FloatArray]] = {}
        self.outputs: dict[str, dict[str, FloatArray]] = {}

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        outputs = self.backend.run(graph, inputs)
        self.inputs[graph], self.outputs[graph] = inputs, dict(outputs)
        return outputs

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return self.backend.describe()

    def close(self) -> None:
        """Leaves the wrapped backend open: it is the codec's."""


def polc_symbols(codec: Codec, data: bytes) -> tuple[list[np.ndarray], FloatArray]:
    """The symbols of z (none without one) and of the steps that polc decodes, and its y_hat.

    They are what polc's y_hat lies above its means by, which is exact for symbols below 2^22.
    """
    backend, plan = RecordingBackend(codec.backend), plain_bundle(codec).plan
    y_hat = codec.over(backend).latent(data)
    medians = codec.bundle.entropy_tables().medians[:, None, None]
    symbols = [np.zeros(0)]
    if plan.hyper:
        symbols = [np.rint(backend.inputs[plan.hyper["graph"]]["z_hat"][0] - medians).ravel()]
    for step in plan.steps:
        if step.graph is None:
            means = joined(step_views(np.broadcast_to(medians, y_hat.shape), step))
        else:
            means = backend.outputs[step.graph].get("means", np.zeros(1)).ravel()
        symbols.append(np.rint(joined(step_views(y_hat, step)) - means))
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
