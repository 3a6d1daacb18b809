"""Predictions in results: written for each picture, read back, and compared with those of another run."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...backends import FloatArray
from ...bundle import Task
from ...errors import DataError
from ..documents import read_json
from .curves import QUALITY

Prediction = NDArray[np.uint16]
"""The most likely class of a picture, [], or of each of its pixels, [H,W]."""

_PREFERRED = ("reference", "latent")
"""Whose predictions of an earlier run are taken: those of PyTorch, where it has them, else its own."""


def predict_class(logits: FloatArray) -> Prediction:
    """The most likely class of logits [classes] or [classes,H,W]; the first of equal ones."""
    return np.asarray(logits.argmax(0), np.uint16)


def encode(prediction: Prediction) -> int | dict[str, Any]:
    """As it stands in the JSON: a class, or a map's size and its little-endian bytes, deflated, in base64."""
    if prediction.ndim == 0:
        return int(prediction)
    packed = zlib.compress(prediction.astype("<u2").tobytes(), 9)
    return {"size": list(prediction.shape), "zlib": base64.b64encode(packed).decode()}


def decode(value: Any) -> Prediction:
    """Reads `encode`'s data.

    Raises:
        ValueError: it is no such data.
    """
    if isinstance(value, int):
        if not 0 <= value < 1 << 16:
            raise ValueError(f"{value} is no class")
        return np.array(value, np.uint16)
    try:
        height, width = (int(side) for side in value["size"])
        size = 2 * height * width
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(value["zlib"], validate=True), size + 1)
    except (KeyError, TypeError, binascii.Error, zlib.error) as error:
        raise ValueError(f"{error!r}") from None
    if len(data) != size:
        raise ValueError(f"a map of {width}x{height} has {size} bytes, got {len(data)}")
    return np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16)


@dataclass
class Earlier:
    """Predictions of an earlier run of `polc-bench accuracy`.

    Attributes:
        path: its document.
        found: prediction as it stands in the JSON, by picture, SHA-256 of its pixels, and quality.
        compared: how many have been compared.
    """

    path: Path
    found: Mapping[tuple[str, str, float], Any]
    compared: int = 0

    @classmethod
    def read(cls, path: Path, task: Task, codec_id: str) -> Earlier:
        """Reads a document.

        Args:
            path: of the file.
            task: that is evaluated now.
            codec_id: of the bundle, in hexadecimal.

        Raises:
            DataError: it is no result of `polc-bench accuracy` with predictions, or of another task or codec.
        """
        document = read_json(path)
        if not isinstance(document, dict) or document.get("command") != "accuracy":
            raise DataError(f"{path}: is no result of 'polc-bench accuracy -o'")
        try:
            about = document["task"]["name"], document["codec"]["codec_id"]
            entries = {
                (str(each["image"]), str(each["sha256"]), float(quality)): value
                for each in document["per_image"]
                for quality, value in zip(each[QUALITY], _values(each["predictions"]), strict=True)
            }
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: has no predictions that can be read ({error!r}): measure again"
            ) from None
        if about != (task.name, codec_id):
            raise DataError(
                f"{path}: is of the task {about[0]} and the codec {str(about[1])[:8]}; expected {task.name} "
                f"and {codec_id[:8]}"
            )
        return cls(path, entries)

    def agreement(self, image: str, sha256: str, quality: float, prediction: Prediction) -> float | None:
        """The part of a picture's predictions that both runs share; None where the other has none.

        Raises:
            DataError: the other's cannot be read.
        """
        value = self.found.get((image, sha256, quality))
        if value is None:
            return None
        try:
            other = decode(value)
            if other.shape != prediction.shape:
                raise ValueError(f"shape {list(other.shape)}, expected {list(prediction.shape)}")
        except ValueError as error:
            raise DataError(f"{self.path}: the prediction of {image} cannot be read: {error}") from None
        self.compared += 1
        return float(np.mean(other == prediction))

    def check_compared(self) -> None:
        """Raises DataError if nothing could be compared."""
        if self.compared == 0:
            raise DataError(f"{self.path}: has no picture at any of the qualities in common with this run")


def _values(predictions: Mapping[str, list[Any]]) -> list[Any]:
    return predictions[next((way for way in _PREFERRED if way in predictions), _PREFERRED[-1])]
