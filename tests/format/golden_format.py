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
from polc_runtime.backends.wrapper import BackendWrapper

FOLDER = Path(__file__).parent
RECORD = FOLDER / "golden.json"
BUNDLE = "nano"
"""The bundle of version 1's golden files (README.md says what to do when it is replaced)."""
PLANS = FOLDER / "plans"
BUNDLES = {BUNDLE: BUNDLE, **{path.name: path for path in sorted(PLANS.iterdir())}}
"""The golden files' bundles by name: the packaged one, and those of `plan_bundles` for version 2."""


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


class RecordingBackend(BackendWrapper):
    """A codec's backend that keeps what goes in and comes out: it gives the decoded symbols away."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.inputs: list[Mapping[str, FloatArray]] = []
        self.outputs: list[dict[str, FloatArray]] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        outputs = super().run(graph, inputs)
        self.inputs.append(inputs)
        self.outputs.append(outputs)
        return outputs


def polc_symbols(codec: Codec, data: bytes) -> tuple[list[np.ndarray], FloatArray]:
    """The symbols of z (none without one) and of the steps that polc decodes, and its y_hat.

    They are what polc's y_hat lies above its means by, which is exact for symbols below 2^22.
    """
    backend, plan = RecordingBackend(codec.backend), plain_bundle(codec).plan
    y_hat = codec.over(backend).latent(data)
    medians = codec.bundle.entropy_tables().medians[:, None, None]
    outputs, symbols = iter(backend.outputs), [np.zeros(0)]
    if plan.hyper:
        hyper_outputs = next(outputs)
        symbols = [np.rint(backend.inputs[0]["z_hat"][0] - medians).ravel()]
    for step in plan.steps:
        if step.graph is None:
            means = joined(step_views(np.broadcast_to(medians, y_hat.shape), step))
        else:
            found = hyper_outputs if step.graph == plan.hyper["graph"] else next(outputs)
            means = found.get("means", np.zeros(1)).ravel()
        symbols.append(np.rint(joined(step_views(y_hat, step)) - means))
    return [part.astype("<i4") for part in symbols], y_hat


def sampled(picture: np.ndarray) -> list[list[int]]:
    """Row, column, red, green and blue of 25 pixels of a picture, or of fewer where it is small."""
    rows, columns = ({side * i // 5 for i in range(5)} for side in picture.shape[:2])
    places = [(row, column) for row in sorted(rows) for column in sorted(columns)]
    return [[row, column, *picture[row, column].tolist()] for row, column in places]


def describe(bundle: str, data: bytes, decoded: Decoded, picture: np.ndarray) -> dict[str, Any]:
    """A golden file's entry in `golden.json`."""
    container = decoded.container
    return {
        "bundle": bundle,
        "version": container.version,
        "sha256": hashlib.sha256(data).hexdigest(),
        "fingerprint": container.fingerprint,
        "codec_id": container.codec_id,
        "width": container.width,
        "height": container.height,
        "quality": container.quality,
        "sections": [[kind, len(content)] for kind, content in container.sections],
        "symbols": [symbol_hash(part) for part in decoded.symbols],
        "pixels": sampled(picture),
    }
