"""The entropy coder in plain Python: specification, oracle for the native coder, and fallback.

64-bit rANS state, 32-bit words, 16-bit tables, escapes as 4-bit digits. docs/bitstream.md says the
same in prose. Bytes equal those of compressai's `ans` for the same symbols, indexes and table.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError
from .tables import PRECISION, CdfTable

LOWER = 1 << 31
"""Least state between two symbols; also the state before the first."""
UPPER = 1 << 63
"""States stay below this."""
DIGIT_BITS = 4
MAX_DIGITS = 8

_WORD = 0xFFFFFFFF
_DIGIT = (1 << DIGIT_BITS) - 1
_INT32 = (-(1 << 31), (1 << 31) - 1)

# An interval of the unit of probability: start, width, bits of the unit.
_Interval = tuple[int, int, int]


def encode(symbols: NDArray[np.int32], indexes: NDArray[np.int32], table: CdfTable) -> bytes:
    """Code symbols with the table rows that `indexes` names, as one stream.

    Args:
        symbols: int32 [n].
        indexes: int32 [n], rows of `table`.
        table: the cumulative frequencies.

    Returns:
        The stream: 8 bytes of state, then 32-bit little-endian words in the order of reading.

    Raises:
        BitstreamError: If an index is outside the table or a symbol too far outside its row.
    """
    rows = _Rows(table)
    pushed: list[_Interval] = []
    for symbol, index in zip(symbols.tolist(), indexes.tolist(), strict=True):
        pushed.extend(rows.intervals(symbol, index))
    state, words = LOWER, []
    for start, width, bits in reversed(pushed):
        if state >= (width << (63 - bits)):
            words.append(state & _WORD)
            state >>= 32
        state = (state // width << bits) + state % width + start
    words += [state >> 32, state & _WORD]
    return struct.pack(f"<{len(words)}I", *reversed(words))


class Decoder:
    """Reads one stream back, in as many calls as the schedule needs.

    Raises:
        BitstreamError: If the stream cannot be the start of one.
    """

    def __init__(self, data: bytes, table: CdfTable) -> None:
        if len(data) < 8 or len(data) % 4:
            raise BitstreamError(f"a stream has {len(data)} bytes, expected a multiple of 4 and at least 8")
        self._words = struct.unpack(f"<{len(data) // 4}I", data)
        self._state = self._words[0] | self._words[1] << 32
        self._next = 2
        self._rows = _Rows(table)
        if not LOWER <= self._state < UPPER:
            raise BitstreamError("a stream does not start with a state of the coder: it is damaged")

    def decode(self, indexes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Decode the next symbols, one for each table row of `indexes` (int32 [n]).

        Raises:
            BitstreamError: If an index is outside the table, the stream ends too soon, or an escape
                is not one. Such a decoder is of no further use.
        """
        return np.array([self._symbol(index) for index in indexes.tolist()], dtype=np.int32)

    def finish(self) -> None:
        """Check that the stream held these symbols and nothing more.

        Raises:
            BitstreamError: If words are left or the state is not the one coding began with.
        """
        if self._next != len(self._words):
            raise BitstreamError(f"a stream has {len(self._words) - self._next} words left after its symbols")
        if self._state != LOWER:
            raise BitstreamError("a stream does not end in the coder's first state: it is damaged")

    def _symbol(self, index: int) -> int:
        cdf, offset = self._rows.row(index)
        escape = len(cdf) - 2
        value = bisect_right(cdf, self._state & 0xFFFF) - 1
        self._pop(cdf[value], cdf[value + 1] - cdf[value], PRECISION)
        if value == escape:
            raw = self._escape()
            value = -(raw >> 1) - 1 if raw & 1 else (raw >> 1) + escape
        symbol = value + offset
        if not _INT32[0] <= symbol <= _INT32[1]:
            raise BitstreamError("a stream holds a symbol beyond 32 bits: it is damaged")
        return symbol

    def _escape(self) -> int:
        digits = self._digit()
        if digits > MAX_DIGITS:
            raise BitstreamError(f"a stream holds an escape of more than {MAX_DIGITS} digits: it is damaged")
        return sum(self._digit() << DIGIT_BITS * i for i in range(digits))

    def _digit(self) -> int:
        digit = self._state & _DIGIT
        self._pop(digit, 1, DIGIT_BITS)
        return digit

    def _pop(self, start: int, width: int, bits: int) -> None:
        state = width * (self._state >> bits) + (self._state & (1 << bits) - 1) - start
        if state < LOWER:
            if self._next == len(self._words):
                raise BitstreamError("a stream ends before its last symbol: the file is truncated or damaged")
            state = state << 32 | self._words[self._next]
            self._next += 1
        self._state = state


class _Rows:
    """A table's rows as Python lists, made when first used."""

    def __init__(self, table: CdfTable) -> None:
        self._table = table
        self._rows: dict[int, tuple[list[int], int]] = {}

    def row(self, index: int) -> tuple[list[int], int]:
        if not 0 <= index < self._table.rows:
            raise BitstreamError(f"table row {index} was asked for, the table has {self._table.rows}")
        if index not in self._rows:
            cdf = self._table.cdf[index, : self._table.lengths[index]].tolist()
            self._rows[index] = (cdf, int(self._table.offsets[index]))
        return self._rows[index]

    def intervals(self, symbol: int, index: int) -> Iterator[_Interval]:
        cdf, offset = self.row(index)
        escape = len(cdf) - 2
        value = symbol - offset
        coded = value if 0 <= value < escape else escape
        yield cdf[coded], cdf[coded + 1] - cdf[coded], PRECISION
        if coded != escape:
            return
        raw = -2 * value - 1 if value < 0 else 2 * (value - escape)
        digits = -(-raw.bit_length() // DIGIT_BITS)
        if digits > MAX_DIGITS:
            raise BitstreamError(f"symbol {symbol} is too far outside table row {index} to be coded")
        yield digits, 1, DIGIT_BITS
        for i in range(digits):
            yield raw >> DIGIT_BITS * i & _DIGIT, 1, DIGIT_BITS
