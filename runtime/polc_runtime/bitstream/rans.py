"""The one door to the entropy coder: chooses the implementation and deals symbols out to streams.

The native coder is used where it was built, the plain-Python one otherwise; both write the same
bytes. The environment variable `POLC_CODER` decides instead if it is set: `python` forces the
plain-Python coder, `native` makes a missing native one an error.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendUnavailable, BitstreamError, UsageError
from ..limits import MAX_STREAMS
from . import rans_reference
from .pool import in_parallel
from .tables import CdfTable

_rans: Any = None
with suppress(ImportError):
    _rans = import_module("polc_runtime._rans")

Ints = NDArray[np.int32]
Coded = tuple[NDArray[Any], NDArray[Any]]
"""Symbols and the table row of each, of one length."""

_STREAM_SYMBOLS = 2**16
# Symbols of one call from which threads pay: about 1 ms of native work, and handing over costs 0.1 ms.
_PARALLEL_FROM = 2**16
_native_tables: weakref.WeakKeyDictionary[CdfTable, Any] = weakref.WeakKeyDictionary()


def implementation() -> Literal["native", "python"]:
    """Which coder runs: `native` where it was built, unless `POLC_CODER` says otherwise.

    Raises:
        UsageError: If `POLC_CODER` is neither `native` nor `python`.
        BackendUnavailable: If it is `native` and there is no native coder.
    """
    wanted = os.environ.get("POLC_CODER") or ("python" if _rans is None else "native")
    if wanted == "python":
        return "python"
    if wanted != "native":
        raise UsageError(f"POLC_CODER is {wanted!r}, expected native or python")
    if _rans is None:
        raise BackendUnavailable(
            "POLC_CODER asks for the native coder, which was not built: install polc with a C++ compiler"
        )
    return "native"


def native() -> Any:
    """The native module; only where `implementation` is `native`."""
    return _rans


def is_fallback() -> bool:
    """Whether the plain-Python coder runs because the native one was not built, and nobody chose it."""
    return _rans is None and not os.environ.get("POLC_CODER")


def stream_count(n_symbols: int) -> int:
    """Streams that a latent of `n_symbols` symbols is coded in: part of the format."""
    return max(1, min(n_symbols // _STREAM_SYMBOLS, MAX_STREAMS))


def encode(symbols: NDArray[Any], indexes: NDArray[Any], table: CdfTable) -> bytes:
    """Code symbols as one stream.

    Args:
        symbols: integers [n].
        indexes: integers [n], the row of `table` for each symbol.
        table: the cumulative frequencies.

    Raises:
        BitstreamError: If an index is outside the table or a symbol cannot be coded.
        ValueError: If the arrays are not integers of one length.
    """
    symbols, indexes = _as_int32(symbols, "symbols"), _as_int32(indexes, "indexes")
    if len(symbols) != len(indexes):
        raise ValueError(f"got {len(symbols)} symbols and {len(indexes)} indexes")
    if implementation() == "python":
        return rans_reference.encode(symbols, indexes, table)
    with _native_errors():
        coded: bytes = _rans.encode(_native(table), symbols, indexes)
        return coded


def encode_streams(steps: Sequence[Coded], table: CdfTable, streams: int) -> list[bytes]:
    """Code a latent's steps as `streams` streams that can be read side by side.

    The n symbols of a step are cut in `streams` ranges; range j, from j * n // streams, goes to
    stream j.

    Args:
        steps: (symbols, indexes) of each coding step, in coding order and push order.
        table: the latent's cumulative frequencies.
        streams: how many; `stream_count` of all symbols in a `.polc` file.

    Raises:
        BitstreamError: If an index is outside the table or a symbol cannot be coded.
        ValueError: If the arrays of a step are not integers of one length.
    """
    for symbols, indexes in steps:
        if len(symbols) != len(indexes):
            raise ValueError(f"got {len(symbols)} symbols and {len(indexes)} indexes")

    def one(j: int) -> bytes:
        parts = [(s[_range(len(s), j, streams)], i[_range(len(i), j, streams)]) for s, i in steps]
        return encode(_joined([s for s, _ in parts]), _joined([i for _, i in parts]), table)

    return in_parallel(one, streams, parallel=_worth_it(sum(len(s) for s, _ in steps)))


class Decoder:
    """Reads one stream back, in as many calls as needed.

    Args:
        data: the stream.
        table: the cumulative frequencies it was coded with.

    Raises:
        BitstreamError: If the stream cannot be the start of one.
    """

    def __init__(self, data: bytes, table: CdfTable) -> None:
        self._decoder: _AnyDecoder
        if implementation() == "python":
            self._decoder = _ReferenceDecoder(data, table)
        else:
            with _native_errors():
                self._decoder = _rans.Decoder(_native(table), bytes(data))

    def decode(self, indexes: NDArray[Any]) -> Ints:
        """Decode the next symbols, one for each table row of `indexes` (integers [n]).

        Raises:
            BitstreamError: If an index is outside the table or the stream is damaged or too short.
        """
        symbols = np.empty(len(indexes), dtype=np.int32)
        self.decode_into(_as_int32(indexes, "indexes"), symbols)
        return symbols

    def decode_into(self, indexes: Ints, symbols: Ints) -> None:
        """Decode as `decode` does, into a contiguous int32 array of the length of `indexes`."""
        with _native_errors():
            self._decoder.decode(indexes, symbols)

    def finish(self) -> None:
        """Check that the stream held exactly the symbols decoded.

        Raises:
            BitstreamError: If something is left, or the coder does not end as it began.
        """
        with _native_errors():
            self._decoder.finish()


class StreamsDecoder:
    """Reads back what `encode_streams` wrote, step by step.

    Args:
        streams: the streams in order.
        table: the cumulative frequencies they were coded with.

    Raises:
        BitstreamError: If a stream cannot be the start of one, or there is none.
    """

    def __init__(self, streams: Sequence[bytes], table: CdfTable) -> None:
        if not streams:
            raise BitstreamError("the latent has no streams")
        self._decoders = [Decoder(stream, table) for stream in streams]

    def decode(self, indexes: NDArray[Any]) -> Ints:
        """Decode the symbols of the next step, in push order (int32 [n], as `indexes`).

        Raises:
            BitstreamError: If an index is outside the table or a stream is damaged or too short.
        """
        rows = _as_int32(indexes, "indexes")
        symbols = np.empty(len(rows), dtype=np.int32)

        def one(j: int) -> None:
            part = _range(len(rows), j, len(self._decoders))
            self._decoders[j].decode_into(rows[part], symbols[part])

        in_parallel(one, len(self._decoders), parallel=_worth_it(len(rows)))
        return symbols

    def finish(self) -> None:
        """Check that every stream held exactly the symbols decoded.

        Raises:
            BitstreamError: If something is left, or a coder does not end as it began.
        """
        for decoder in self._decoders:
            decoder.finish()


class _AnyDecoder(Protocol):
    def decode(self, indexes: Ints, out: Ints) -> None: ...

    def finish(self) -> None: ...


class _ReferenceDecoder:
    def __init__(self, data: bytes, table: CdfTable) -> None:
        self._decoder = rans_reference.Decoder(data, table)

    def decode(self, indexes: Ints, out: Ints) -> None:
        out[:] = self._decoder.decode(indexes)

    def finish(self) -> None:
        self._decoder.finish()


def _native(table: CdfTable) -> Any:
    found = _native_tables.get(table)
    if found is None:
        found = _native_tables[table] = _rans.Tables(table.cdf, table.lengths, table.offsets)
    return found


@contextmanager
def _native_errors() -> Iterator[None]:
    if _rans is None:
        yield
        return
    try:
        yield
    except _rans.RansError as error:
        raise BitstreamError(str(error)) from None


def _as_int32(values: NDArray[Any], name: str) -> Ints:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{name} should be integers [n], got {values.dtype} of shape {values.shape}")
    if values.size and values.dtype.itemsize >= 4 and values.dtype != np.int32:
        low, high = int(values.min()), int(values.max())
        if low < -(2**31) or high >= 2**31:
            raise BitstreamError(f"{name} go from {low} to {high}, beyond 32 bits")
    return np.ascontiguousarray(values, dtype=np.int32)


def _range(n: int, j: int, streams: int) -> slice:
    return slice(j * n // streams, (j + 1) * n // streams)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)


def _worth_it(symbols: int) -> bool:
    return symbols >= _PARALLEL_FROM and implementation() == "native"
