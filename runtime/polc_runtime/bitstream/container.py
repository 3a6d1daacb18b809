"""The `.polc` file, bitstream version 1: header, sections, checksums (docs/bitstream.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, UsageError
from ..limits import DEFAULT_LIMITS, MAX_SECTIONS, Limits
from .calibration import Calibration
from .geometry import HYPER_STRIDE, LATENT_STRIDE, padded_size
from .rans import stream_count
from .schedule import STEP_COUNT

MAGIC = b"POLC"
VERSION = 1
QUALITY_UNIT = 256
"""Quality is kept in steps of 1/256."""

CHECKSUM_COUNT = 1 + STEP_COUNT

_FIXED = struct.Struct("<4sB8s4sIIH")
_CRC = struct.Struct("<I")
_CHECKSUMS = struct.Struct(f"<{CHECKSUM_COUNT}H")
_QUALITY_RANGE = (1 * QUALITY_UNIT, 8 * QUALITY_UNIT)

_Z, _Y, _SUMS, _CALIBRATION = 1, 2, 3, 4
_NAMES = {_Z: "z", _Y: "y", _SUMS: "checksums", _CALIBRATION: "calibration"}
_ORDER = (_Z, _Y, _SUMS, _CALIBRATION)
_REQUIRED = (_Z, _Y, _SUMS)
_FIRST_ANCILLARY = 128
_MAX_LENGTH_BYTES = 5


@dataclass(frozen=True)
class Header:
    """The fixed part of a file.

    Attributes:
        fingerprint: 8 bytes, of what decoding depends on; another bundle's file cannot be decoded.
        codec_id: 4 bytes, of all codec weights; a mismatch is worth a warning.
        width: image width in pixels, before padding.
        height: image height in pixels, before padding.
        quality_code: quality times 256, 256..2048.
    """

    fingerprint: bytes
    codec_id: bytes
    width: int
    height: int
    quality_code: int

    @property
    def quality(self) -> float:
        """The quality, 1..8, exactly as the networks take it."""
        return self.quality_code / QUALITY_UNIT

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width the networks see: multiples of 64, at least 192."""
        return padded_size(self.height, self.width)

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latent y: a sixteenth of the padded image's."""
        h, w = self.padded_size
        return h // LATENT_STRIDE, w // LATENT_STRIDE

    @property
    def hyper_size(self) -> tuple[int, int]:
        """Height and width of the hyper-latent z: a sixty-fourth of the padded image's."""
        h, w = self.padded_size
        return h // HYPER_STRIDE, w // HYPER_STRIDE


@dataclass(frozen=True)
class Container:
    """A whole file: the header and the content of its sections.

    Attributes:
        header: the fixed part.
        z: the hyper-latent's stream.
        y: the latent's section as it stands in the file: stream lengths, then streams
            (`join_streams`, `y_streams`).
        checksums: `symbol_checksum` of z and of the nine steps' symbols, in coding order.
        calibration: what decoders on other machines need; None for a file without.
    """

    header: Header
    z: bytes
    y: bytes
    checksums: tuple[int, ...]
    calibration: Calibration | None = None

    def pack(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The file's bytes.

        Raises:
            BitstreamError: If a field is out of range.
        """
        header = self.header
        _check_header(header, limits)
        if len(self.checksums) != CHECKSUM_COUNT:
            raise BitstreamError(f"a file holds {CHECKSUM_COUNT} checksums, got {len(self.checksums)}")
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            header.fingerprint,
            header.codec_id,
            header.width,
            header.height,
            header.quality_code,
        )
        body = b"".join([fixed, *(_section(kind, payload) for kind, payload in self._payloads())])
        data = body + _CRC.pack(zlib.crc32(body))
        if len(data) > limits.max_bytes:
            raise BitstreamError(f"the file would have {len(data)} bytes, the limit is {limits.max_bytes}")
        return data

    @classmethod
    def unpack(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Container:
        """Read a file's bytes; ancillary sections are skipped.

        Raises:
            BitstreamError: If the file is not a `.polc` file, is newer than this version, damaged,
                or beyond the limits. Each has its own message.
        """
        _check_frame(data, limits)
        _, _, fingerprint, codec_id, width, height, quality = _FIXED.unpack_from(data)
        header = Header(fingerprint, codec_id, width, height, quality)
        _check_header(header, limits)
        found = _read_sections(data[_FIXED.size : -_CRC.size])
        sums = found[_SUMS]
        if len(sums) != _CHECKSUMS.size:
            raise BitstreamError(f"the checksums have {len(sums)} bytes, expected {_CHECKSUMS.size}")
        calibration = Calibration.unpack(found[_CALIBRATION]) if _CALIBRATION in found else None
        return cls(header, found[_Z], found[_Y], _CHECKSUMS.unpack(sums), calibration)

    def y_streams(self, n_symbols: int) -> list[bytes]:
        """The latent's streams.

        Args:
            n_symbols: symbols of the latent: the model's channels times the latent's size. It
                settles how many streams there are.

        Raises:
            BitstreamError: If the section does not hold that many streams.
        """
        return split_streams(self.y, stream_count(n_symbols))

    @property
    def section_sizes(self) -> dict[str, int]:
        """Bytes of each part, framing included; they sum to the file's size as `pack` writes it."""
        sizes = {"header": _FIXED.size}
        sizes |= {_NAMES[kind]: len(_section(kind, payload)) for kind, payload in self._payloads()}
        return sizes | {"crc": _CRC.size}

    def _payloads(self) -> list[tuple[int, bytes]]:
        payloads = [(_Z, self.z), (_Y, self.y), (_SUMS, _CHECKSUMS.pack(*self.checksums))]
        return payloads + ([(_CALIBRATION, self.calibration.pack())] if self.calibration else [])


def quality_code(quality: float) -> int:
    """A quality rounded to 1/256, times 256: what the header holds and analysis must use.

    Raises:
        UsageError: If the quality is outside 1..8.
    """
    low, high = _QUALITY_RANGE
    code = round(quality * QUALITY_UNIT) if low <= quality * QUALITY_UNIT <= high else 0
    if not code:
        raise UsageError(f"quality must lie between 1 and 8, got {quality}")
    return code


def symbol_checksum(symbols: NDArray[Any]) -> int:
    """Low 16 bits of the CRC-32 of the symbols as little-endian int32, in C order."""
    return zlib.crc32(np.ascontiguousarray(symbols, dtype="<i4").data) & 0xFFFF


def join_streams(streams: Sequence[bytes]) -> bytes:
    """The y section of these streams: the length of each but the last, then all of them."""
    return b"".join([*(_leb128(len(stream)) for stream in streams[:-1]), *streams])


def split_streams(section: bytes, count: int) -> list[bytes]:
    """Undo `join_streams` for `count` streams.

    Raises:
        BitstreamError: If the section is too short for them.
    """
    lengths, at = [], 0
    for _ in range(count - 1):
        length, at = _read_leb128(section, at)
        lengths.append(length)
    rest = len(section) - at - sum(lengths)
    if rest < 0:
        raise BitstreamError(
            f"the y section announces streams of {sum(lengths)} bytes, {len(section) - at} are there"
        )
    streams = []
    for length in [*lengths, rest]:
        streams.append(section[at : at + length])
        at += length
    return streams


def _check_frame(data: bytes, limits: Limits) -> None:
    if data[: len(MAGIC)] != MAGIC:
        raise BitstreamError("not a .polc file: it does not start with POLC")
    least = _FIXED.size + _CRC.size
    if len(data) > len(MAGIC) and data[len(MAGIC)] < VERSION:
        raise BitstreamError(
            "the file has bitstream version 0, a draft that no released polc reads: encode the image again"
        )
    if len(data) > len(MAGIC) and data[len(MAGIC)] > VERSION:
        raise BitstreamError(
            f"the file has bitstream version {data[len(MAGIC)]}, "
            f"this polc reads up to {VERSION}: use a newer polc"
        )
    if len(data) < least:
        raise BitstreamError(
            f"the file is truncated: it has {len(data)} bytes, a .polc file at least {least}"
        )
    if problem := limits.bytes_problem("max_bytes", len(data)):
        raise BitstreamError(f"the file {problem}")
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        raise BitstreamError("the file is damaged or truncated: its CRC-32 does not match")


def _check_header(header: Header, limits: Limits) -> None:
    if len(header.fingerprint) != 8 or len(header.codec_id) != 4:
        raise BitstreamError(
            "fingerprint and codec_id have 8 and 4 bytes, "
            f"got {len(header.fingerprint)} and {len(header.codec_id)}"
        )
    problem = limits.size_problem(header.width, header.height)
    if problem:
        raise BitstreamError(problem)
    low, high = _QUALITY_RANGE
    if not low <= header.quality_code <= high:
        raise BitstreamError(f"the file's quality is {header.quality:g}, expected 1 to 8")


def _read_sections(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = count = 0
    while at < len(body):
        count += 1
        if count > MAX_SECTIONS:
            raise BitstreamError(f"the file has more than {MAX_SECTIONS} sections")
        kind = body[at]
        length, at = _read_leb128(body, at + 1)
        if length > len(body) - at:
            raise BitstreamError(
                f"section {_name(kind)} announces {length} bytes, {len(body) - at} are left in the file"
            )
        if kind < _FIRST_ANCILLARY:
            _check_place(kind, found)
            found[kind] = body[at : at + length]
        at += length
    for kind in _REQUIRED:
        if kind not in found:
            raise BitstreamError(f"the file has no section {_name(kind)}")
    return found


def _check_place(kind: int, found: dict[int, bytes]) -> None:
    if kind not in _ORDER:
        raise BitstreamError(f"section {_name(kind)} is unknown and may not be skipped: use a newer polc")
    if kind in found:
        raise BitstreamError(f"section {_name(kind)} is there twice")
    if kind != _ORDER[len(found)]:
        raise BitstreamError(f"section {_name(kind)} stands where {_name(_ORDER[len(found)])} should")


def _name(kind: int) -> str:
    return f"{kind} ({_NAMES[kind]})" if kind in _NAMES else str(kind)


def _section(kind: int, payload: bytes) -> bytes:
    return bytes([kind]) + _leb128(len(payload)) + payload


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_LENGTH_BYTES):
        if at + i >= len(data):
            raise BitstreamError("the file ends within a length")
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise BitstreamError("a length is written with more bytes than it needs")
            return value, at + i + 1
    raise BitstreamError(f"a length takes more than {_MAX_LENGTH_BYTES} bytes")
