"""Typed look-ups in parsed JSON that nobody vouches for: each fault is one line that names the field."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import BundleError

SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_SIZE = 1 << 16

Axes = tuple[int | str, ...]


class Fields:
    """Typed look-ups in a JSON object, each failing with the field's name."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise BundleError(f"{where} is not an object")
        self.value, self.where = value, where

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        value = self.value.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BundleError(f"{self.where}: {key} is {'missing' if value is None else 'not usable'}")
        return value

    def section(self, key: str) -> Fields:
        return Fields(self.get(key, dict), f"{self.where}: {key}")

    def digest(self, key: str) -> bytes:
        text = self.get(key, str)
        if not SHA256.fullmatch(text):
            raise BundleError(f"{self.where}: {key} is not a SHA-256")
        return bytes.fromhex(text)

    def numbers(self, key: str, count: int) -> list[float]:
        values = self.get(key, list)
        if len(values) != count or not all(isinstance(v, int | float) for v in values):
            raise BundleError(f"{self.where}: {key} is not {count} numbers")
        return [float(v) for v in values]

    def axes(self, key: str) -> dict[str, Axes]:
        shapes = self.get(key, dict).items()
        return {str(name): tuple(shape) for name, shape in shapes if isinstance(shape, list)}


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 16
