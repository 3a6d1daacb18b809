"""Takes a `.polc` file apart for the plain decoder: File, Sections and Limits of docs/bitstream.md."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

# File, Sections, Limits
MAX_SIDE, MAX_PIXELS, MAX_FILE, MAX_SECTIONS, MAX_LEB128 = 65535, 2**28, 2**30, 65536, 5
Z, Y, CHECKSUMS, CALIBRATION, ANCILLARY = 1, 2, 3, 4, 128


@dataclass(frozen=True)
class Container:
    """A file taken apart; `sections` are types and contents in the file's order."""

    version: int
    fingerprint: str
    codec_id: str
    width: int
    height: int
    quality: float
    sections: list[tuple[int, bytes]]

    def critical(self) -> dict[int, bytes]:
        return {kind: content for kind, content in self.sections if kind < ANCILLARY}


def number(data: bytes, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")


def leb128(data: bytes, start: int) -> tuple[int, int]:
    """The LEB128 at `start`, and the position after it."""
    value = 0
    for i, byte in enumerate(data[start : start + MAX_LEB128]):
        value |= (byte & 127) << (7 * i)
        if byte < 128:
            if byte == 0 and i > 0:
                raise ValueError("a length takes more bytes than it needs")
            return value, start + i + 1
    raise ValueError("a length is cut off or takes more than 5 bytes")


def split_sections(data: bytes, version: int) -> list[tuple[int, bytes]]:
    sections, at = [], 0
    while at < len(data):
        kind = data[at]
        length, at = leb128(data, at + 1)
        if length > len(data) - at:
            raise ValueError(f"section {kind} is longer than the file")
        sections.append((kind, data[at : at + length]))
        at += length
    if len(sections) > MAX_SECTIONS:
        raise ValueError(f"{len(sections)} sections")
    critical = [kind for kind, _ in sections if kind < ANCILLARY]
    allowed = [[Z, Y, CHECKSUMS], [Z, Y, CHECKSUMS, CALIBRATION], [Y, CHECKSUMS]]
    if critical not in allowed[: version + 1]:
        raise ValueError(f"sections {critical}, not one of {allowed[: version + 1]}")
    checksums = dict(sections)[CHECKSUMS]
    size = len(checksums)
    if size != 20 if version == 1 else size % 2 or not 4 <= size <= 130:
        raise ValueError(f"{size} bytes of checksums")
    if Z not in critical and number(checksums, 0, 2):
        raise ValueError("a checksum of z, without z")
    return sections


def parse(data: bytes) -> Container:
    """Takes a file apart, with the checks in the document's order."""
    if data[:4] != b"POLC":
        raise ValueError("not a .polc file")
    if len(data) > 4 and data[4] not in (1, 2):
        raise ValueError(f"version {data[4]}, not 1 or 2")
    if not 31 <= len(data) <= MAX_FILE:
        raise ValueError(f"{len(data)} bytes: truncated, or over the limit")
    if zlib.crc32(data[:-4]) != number(data, len(data) - 4, 4):
        raise ValueError("damaged: the CRC-32 differs")
    width, height, quality = number(data, 17, 4), number(data, 21, 4), number(data, 25, 2)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"size {width}x{height} out of range")
    if quality == 0 or data[4] == 1 and not 256 <= quality <= 2048:
        raise ValueError(f"quality {quality}/256 out of range")
    sections = split_sections(data[27:-4], data[4])
    return Container(data[4], data[5:13].hex(), data[13:17].hex(), width, height, quality / 256, sections)
