"""Inputs of several parts as one string of bytes, so that a fuzzer can change each of them alone."""

from __future__ import annotations

import struct
from collections.abc import Iterable

_LENGTH = struct.Struct("<H")


def join(parts: Iterable[bytes]) -> bytes:
    """Each part behind its length of 16 bits; the last one alone, so it may be longer."""
    *first, last = parts
    return b"".join([*(_LENGTH.pack(len(part)) + part for part in first), last])


def split(data: bytes, count: int) -> list[bytes]:
    """Undoes `join` for any bytes: what is missing is empty."""
    parts = []
    for _ in range(count - 1):
        length = int.from_bytes(data[: _LENGTH.size], "little")
        parts.append(data[_LENGTH.size : _LENGTH.size + length])
        data = data[_LENGTH.size + length :]
    return [*parts, data]
