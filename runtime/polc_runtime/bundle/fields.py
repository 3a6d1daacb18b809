"""Typed look-ups in parsed JSON that nobody vouches for: each fault is one line that names the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..errors import BundleError
from ..limits import MAX_WIDTH

_SHA256 = re.compile(r"[0-9a-f]{64}")

Axes = tuple[int | str, ...]
"""A tensor's shape; text is an axis of any size: "batch", "64*h", of an output also "64*h+1"."""


def parse_json(text: str) -> Any:
    """Parses JSON to the letter: no key twice in an object, no numbers but finite ones.

    Raises:
        ValueError: it is something else, or nested too deeply.
    """
    try:
        return json.loads(
            text, object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite_float
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {_shown(key)} is there twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {_shown(text)} is too large")
    return value


class Fields:
    """A JSON object; every look-up raises a BundleError with the field's name where it does not fit.

    Args:
        value: what should be an object.
        where: what messages call it.
    """

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise BundleError(f"{where} is not an object")
        self.value, self.where = value, where

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, of a type; a bool is no int."""
        value = self.value.get(key, default)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(key, "missing" if value is None else "not usable")
        return value

    def section(self, key: str) -> Fields:
        """An object inside."""
        return Fields(self.get(key, dict), f"{self.where}: {key}")

    def sections(self, key: str) -> list[Fields]:
        """A list of objects; empty where the key is absent."""
        return [Fields(value, f"{self.where}: {key}") for value in self.get(key, list, [])]

    def flat(self, key: str, default: Any = None) -> dict[str, Any]:
        """An object of plain values and lists of them, nothing deeper."""
        return _flat(self.get(key, dict, default), f"{self.where}: {key}")

    def flats(self, key: str) -> tuple[dict[str, Any], ...]:
        """A list of such objects; empty where the key is absent."""
        return tuple(_flat(fields.value, fields.where) for fields in self.sections(key))

    def digest(self, key: str) -> bytes:
        """The 32 bytes of a SHA-256."""
        text = self.get(key, str)
        if not _SHA256.fullmatch(text):
            raise self.wrong(key, "not a SHA-256")
        return bytes.fromhex(text)

    def numbers(self, key: str, count: int) -> list[float]:
        """A list of so many finite numbers."""
        values = self.get(key, list)
        if len(values) != count or not all(_is_number(value) for value in values):
            raise self.wrong(key, f"not {count} numbers")
        return [float(value) for value in values]

    def number(self, key: str) -> float:
        """A finite number."""
        value: Any = self.value.get(key)
        if not _is_number(value):
            raise self.wrong(key, "not a number")
        return float(value)

    def size(self, key: str, most: int = MAX_WIDTH, least: int = 1) -> int:
        """A whole number within bounds."""
        value: int = self.get(key, int)
        if not least <= value <= most:
            raise self.wrong(key, f"{_shown(value)}, expected {least} to {most}")
        return value

    def sizes(self, key: str, count: int, most: int = MAX_WIDTH, least: int = 1) -> list[int]:
        """A list of so many whole numbers within bounds."""
        values = self.get(key, list)
        if len(values) != count or not all(_is_whole(value, least, most) for value in values):
            raise self.wrong(key, f"{_shown(values)}, expected {count} whole numbers from {least} to {most}")
        return list(values)

    def optional_size(self, key: str, most: int = MAX_WIDTH) -> int | None:
        """As `size`, or None."""
        return None if self.value.get(key) is None else self.size(key, most)

    def choice(self, key: str, known: tuple[str, ...]) -> str:
        """One of the texts that are known."""
        value: str = self.get(key, str)
        if value not in known:
            raise self.wrong(key, f"{_shown(value)}, known are {', '.join(known)}")
        return value

    def axes(self, key: str) -> dict[str, Axes]:
        """Shapes by name."""
        shapes = self.get(key, dict)
        if not all(
            isinstance(shape, list) and all(_is_axis(axis) for axis in shape) for shape in shapes.values()
        ):
            raise self.wrong(key, "not a list of axes for each name")
        return {name: tuple(shape) for name, shape in shapes.items()}

    def wrong(self, key: str, what: str) -> BundleError:
        """The error that says that a key `is` something."""
        return BundleError(f"{self.where}: {key} is {what}")


def is_size(value: Any) -> bool:
    """Whether a value is a whole number from 1 to 65536."""
    return _is_whole(value, 1, MAX_WIDTH)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_axis(value: Any) -> bool:
    return isinstance(value, str) or is_size(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _flat(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, entry in value.items():
        if not all(_is_plain(item) for item in (entry if isinstance(entry, list) else [entry])):
            raise BundleError(f"{where}: {key} is no plain value")
    return dict(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
