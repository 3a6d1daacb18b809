"""The `.polc` file, bitstream versions 1 and 2: header, sections, checksums (docs/bitstream.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import (
    BitstreamError,
    BitstreamLimitError,
    LimitError,
    NotPolcError,
    TruncatedError,
    UsageError,
    VersionError,
)
from ..limits import DEFAULT_LIMITS, MAX_SECTIONS, Limits
from .calibration import Calibration
from .plan import MAX_STEPS, VERSION_1_QUALITIES
from .rans import stream_count
from .schedule import STEP_COUNT

MAGIC = b"POLC"
VERSIONS = (1, 2)
"""Version 1 holds the nine steps, version 2 any plan's."""
QUALITY_UNIT = 256
"""Quality is kept in steps of 1/256."""

_FIXED = struct.Struct("<4sB8s4sIIH")
_CRC = struct.Struct("<I")
_QUALITY_CODES = {1: tuple(int(quality * QUALITY_UNIT) for quality in VERSION_1_QUALITIES), 2: (1, 65535)}
"""Least and largest by version."""

_Z, _Y, _SUMS, _CALIBRATION = 1, 2, 3, 4
_NAMES = {_Z: "z", _Y: "y", _SUMS: "checksums", _CALIBRATION: "calibration"}
_ORDER = (_Z, _Y, _SUMS, _CALIBRATION)
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
        quality_code: quality times 256; 256..2048 in version 1.
    """

    fingerprint: bytes
    codec_id: bytes
    width: int
    height: int
    quality_code: int

    @property
    def quality(self) -> float:
        """The quality, exactly as the networks take it."""
        return self.quality_code / QUALITY_UNIT


@dataclass(frozen=True)
class Container:
    """A whole file: the header and the content of its sections.

    Attributes:
        header: the fixed part.
        z: the hyper-latent's stream; None for a codec without one (version 2).
        y: the latent's section as it stands in the file: stream lengths, then streams
            (`join_streams`, `y_streams`).
        checksums: `symbol_checksum` of z (0 where there is none) and of each step's symbols, in coding order.
        calibration: what decoders on other machines need; None for a file without.
        version: of the bitstream, one of `VERSIONS`.
    """

    header: Header
    z: bytes | None
    y: bytes
    checksums: tuple[int, ...]
    calibration: Calibration | None = None
    version: int = 1

    def pack(self, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The file's bytes.

        Raises:
            LimitError: the image, or the file, is larger than the limits.
            BitstreamError: a field is out of range.
        """
        header = self.header
        _check_header(header, self.version, limits)
        if self.version == 1 and (len(self.checksums) != 1 + STEP_COUNT or self.z is None):
            raise BitstreamError(
                f"version 1 holds a hyper-latent and {1 + STEP_COUNT} checksums, got {len(self.checksums)}"
            )
        self._check_without_z()
        fixed = _FIXED.pack(
            MAGIC,
            self.version,
            header.fingerprint,
            header.codec_id,
            header.width,
            header.height,
            header.quality_code,
        )
        body = b"".join([fixed, *(_section(kind, payload) for kind, payload in self._payloads())])
        data = body + _CRC.pack(zlib.crc32(body))
        if len(data) > limits.max_bytes:
            raise LimitError(f"the file would have {len(data)} bytes, the limit is {limits.max_bytes}")
        return data

    @classmethod
    def unpack(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Container:
        """Read a file's bytes; ancillary sections are skipped.

        Raises:
            BitstreamError: the file is not a `.polc` file, of another version, truncated, damaged, or beyond
                the limits: each is a class of its own, see `polc_runtime.errors`.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise UsageError(f"a .polc file must be given as its bytes, got {type(data).__name__}")
        data = bytes(data)
        _check_frame(data, limits)
        _, version, fingerprint, codec_id, width, height, quality = _FIXED.unpack_from(data)
        header = Header(fingerprint, codec_id, width, height, quality)
        _check_header(header, version, limits)
        found: dict[int, bytes] = {}
        _read_sections(data[_FIXED.size : -_CRC.size], version, found)
        checksums = _checksums(found[_SUMS], version)
        calibration = None
        if _CALIBRATION in found:
            calibration = Calibration.unpack(found[_CALIBRATION], len(checksums) - 1)
        container = cls(header, found.get(_Z), found[_Y], checksums, calibration, version)
        container._check_without_z()
        return container

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

    def _check_without_z(self) -> None:
        if self.z is None and (self.checksums[0] or self.calibration):
            raise BitstreamError(
                "the file does not fit together: without a hyper-latent there is no checksum of one and no "
                "calibration"
            )

    def _payloads(self) -> list[tuple[int, bytes]]:
        payloads = [] if self.z is None else [(_Z, self.z)]
        payloads += [(_Y, self.y), (_SUMS, np.array(self.checksums, "<u2").tobytes())]
        return payloads + ([(_CALIBRATION, self.calibration.pack())] if self.calibration else [])


def quality_code(quality: float, low: float, high: float) -> int:
    """A quality rounded to 1/256, times 256: what the header holds and analysis must use.

    Args:
        quality: what was asked for.
        low: smallest that there is.
        high: largest.

    Raises:
        UsageError: the quality is outside of the range.
    """
    if not low <= quality <= high:
        allowed = f"lie between {low:g} and {high:g}" if low < high else f"be {low:g}, the only one here"
        raise UsageError(f"quality must {allowed}, got {quality:g}")
    return round(quality * QUALITY_UNIT)


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
        raise NotPolcError("not a .polc file: it does not start with POLC")
    least = _FIXED.size + _CRC.size
    if len(data) > len(MAGIC) and data[len(MAGIC)] < min(VERSIONS):
        raise VersionError(
            "the file has bitstream version 0, a draft that no released polc reads: encode the image again"
        )
    if len(data) > len(MAGIC) and data[len(MAGIC)] > max(VERSIONS):
        raise VersionError(
            f"the file has bitstream version {data[len(MAGIC)]}, "
            f"this polc reads up to {max(VERSIONS)}: use a newer polc"
        )
    if len(data) < least:
        raise TruncatedError(
            f"the file is truncated: it has {len(data)} bytes, a .polc file at least {least}"
        )
    if problem := limits.bytes_problem("max_bytes", len(data)):
        raise BitstreamLimitError(f"the file {problem}")
    if zlib.crc32(memoryview(data)[: -_CRC.size]) != _CRC.unpack_from(data, len(data) - _CRC.size)[0]:
        _refuse_short(data)
        raise BitstreamError("the file is damaged or truncated: its CRC-32 does not match")


def _refuse_short(data: bytes) -> None:
    """Raises TruncatedError if a file whose CRC-32 is wrong ends before its critical sections do."""
    found: dict[int, bytes] = {}
    try:
        _read_sections(data[_FIXED.size : -_CRC.size], data[len(MAGIC)], found)
    except TruncatedError as error:
        if _SUMS not in found:
            raise TruncatedError(f"the file is truncated, or a length in it is damaged: {error}") from None
    except BitstreamError:
        return


def _check_header(header: Header, version: int, limits: Limits) -> None:
    if len(header.fingerprint) != 8 or len(header.codec_id) != 4:
        raise BitstreamError(
            "fingerprint and codec_id have 8 and 4 bytes, "
            f"got {len(header.fingerprint)} and {len(header.codec_id)}"
        )
    problem = limits.size_problem(header.width, header.height)
    if problem:
        raise BitstreamLimitError(problem)
    low, high = _QUALITY_CODES[version]
    if not low <= header.quality_code <= high:
        expected = f"{low / QUALITY_UNIT:g} to {high / QUALITY_UNIT:g}"
        raise BitstreamError(f"the file's quality is {header.quality:g}, expected {expected}")


def _checksums(section: bytes, version: int) -> tuple[int, ...]:
    """The checksums of a section: ten in version 1, two to 65 in version 2."""
    count, odd = divmod(len(section), 2)
    if version == 1 and len(section) != 2 * (1 + STEP_COUNT):
        raise BitstreamError(f"the checksums have {len(section)} bytes, expected {2 * (1 + STEP_COUNT)}")
    if odd or not 2 <= count <= 1 + MAX_STEPS:
        expected = f"an even number from 4 to {2 * (1 + MAX_STEPS)}"
        raise BitstreamError(f"the checksums have {len(section)} bytes, expected {expected}")
    return tuple(int(value) for value in np.frombuffer(section, "<u2"))


def _read_sections(body: bytes, version: int, found: dict[int, bytes]) -> None:
    """Puts the content of the critical sections into `found`, by type."""
    at = count = 0
    while at < len(body):
        count += 1
        if count > MAX_SECTIONS:
            raise BitstreamError(f"the file has more than {MAX_SECTIONS} sections")
        kind = body[at]
        length, at = _read_leb128(body, at + 1)
        if length > len(body) - at:
            raise TruncatedError(
                f"section {_name(kind)} announces {length} bytes, {len(body) - at} are left in the file"
            )
        if kind < _FIRST_ANCILLARY:
            _check_place(kind, found, version)
            found[kind] = body[at : at + length]
        at += length
    for kind in (_Z, _Y, _SUMS) if version == 1 else (_Y, _SUMS):
        if kind not in found:
            raise BitstreamError(f"the file has no section {_name(kind)}")


def _check_place(kind: int, found: dict[int, bytes], version: int) -> None:
    if kind not in _ORDER:
        raise BitstreamError(f"section {_name(kind)} is unknown and may not be skipped: use a newer polc")
    if kind in found:
        raise BitstreamError(f"section {_name(kind)} is there twice")
    without_z = version > 1 and _Z not in found and (found or kind != _Z)
    due = _ORDER[len(found) + (1 if without_z else 0) :][:1]
    if kind not in due:
        expected = _name(due[0]) if due else "no other"
        raise BitstreamError(f"section {_name(kind)} stands where {expected} should")


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
            raise TruncatedError("the file ends within a length")
        byte = data[at + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise BitstreamError("a length is written with more bytes than it needs")
            return value, at + i + 1
    raise BitstreamError(f"a length takes more than {_MAX_LENGTH_BYTES} bytes")
