"""The writing side of docs/bitstream.md in plain Python: containers and streams, no networks and no polc.

For tests that put files and streams together by hand; it writes whatever it is given, faults too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

Interval = tuple[int, int, int]
"""Start, width and k: an interval of a unit of 2^k."""


def leb128(value: int) -> bytes:
    """A number in the least bytes."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def section(kind: int, content: bytes) -> bytes:
    """A section with its type and length."""
    return bytes([kind]) + leb128(len(content)) + content


def seal(body: bytes) -> bytes:
    """A file of these bytes: its CRC-32 put behind."""
    return body + struct.pack("<I", zlib.crc32(body))


def join(fixed: bytes, sections: Iterable[tuple[int, bytes]]) -> bytes:
    """A file of the 27 bytes before its sections, and the sections."""
    return seal(fixed + b"".join(section(kind, content) for kind, content in sections))


def join_streams(streams: Sequence[bytes]) -> bytes:
    """The section y of these streams."""
    return b"".join([*(leb128(len(stream)) for stream in streams[:-1]), *streams])


def intervals(symbol: int, row: Sequence[int], offset: int, more_digits: int = 0) -> Iterator[Interval]:
    """What a symbol is coded as; `more_digits` zeros may be added to an escape."""
    v, e = symbol - offset, len(row) - 2
    if 0 <= v < e:
        yield row[v], row[v + 1] - row[v], 16
        return
    yield row[e], row[e + 1] - row[e], 16
    raw = 2 * (v - e) if v >= e else -2 * v - 1
    digits = next(count for count in range(9) if raw < 16**count) + more_digits
    yield digits, 1, 4
    for i in range(digits):
        yield raw >> 4 * i & 15, 1, 4


def encode(coded: Iterable[Interval]) -> bytes:
    """The stream of intervals, which are given in the order of decoding."""
    x, words = 2**31, []
    for start, width, k in reversed(list(coded)):
        if x >= width * 2 ** (63 - k):
            words.append(x % 2**32)
            x >>= 32
        x = (x // width) * 2**k + x % width + start
    words += [x >> 32, x % 2**32]
    return struct.pack(f"<{len(words)}I", *reversed(words))


def encode_symbols(
    symbols: Sequence[int],
    rows: Sequence[int],
    table: Sequence[Sequence[int]],
    offsets: Sequence[int],
    more_digits: int = 0,
) -> bytes:
    """The stream of symbols, each with its row of a table."""
    coded = (
        interval
        for symbol, row in zip(symbols, rows, strict=True)
        for interval in intervals(symbol, table[row], offsets[row], more_digits)
    )
    return encode(coded)
