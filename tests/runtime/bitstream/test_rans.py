from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polc_runtime.bitstream import rans, rans_reference
from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.errors import BackendUnavailable, BitstreamError, UsageError

# compressai counts digits with a shift that is only defined below eight of them, and writes outside
# its buffer for very few symbols.
COMPRESSAI_RAW, COMPRESSAI_LEAST = 2**28, 4

needs_native = pytest.mark.skipif(rans._rans is None, reason="the native coder is not built")


@st.composite
def cdf_tables(draw: st.DrawFn, least_length: int = 2) -> CdfTable:
    inner = st.lists(st.integers(1, 65535), min_size=least_length - 2, max_size=12, unique=True)
    rows = draw(st.lists(inner, min_size=1, max_size=4))
    cdf = np.zeros((len(rows), max(map(len, rows)) + 2), np.int32)
    for r, cuts in enumerate(rows):
        cdf[r, 1 : len(cuts) + 2] = [*sorted(cuts), 65536]
    offsets = draw(st.lists(st.integers(-20, 20), min_size=len(rows), max_size=len(rows)))
    return CdfTable(cdf, np.array([len(cuts) + 2 for cuts in rows]), np.array(offsets))


def draw_symbols(
    data: st.DataObject, table: CdfTable, largest: int, least: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    symbol = st.one_of(st.integers(-15, 30), st.integers(-largest, largest))
    pairs = data.draw(
        st.lists(st.tuples(symbol, st.integers(0, table.rows - 1)), min_size=least, max_size=60)
    )
    array = np.array(pairs, np.int32).reshape(-1, 2)
    return np.ascontiguousarray(array[:, 0]), np.ascontiguousarray(array[:, 1])


def raw_escapes(symbols: np.ndarray, indexes: np.ndarray, table: CdfTable) -> np.ndarray:
    value = symbols.astype(np.int64) - table.offsets[indexes]
    escape = table.lengths[indexes] - 2
    return np.where(value < 0, -2 * value - 1, np.where(value >= escape, 2 * (value - escape), 0))


def native_encode(symbols: np.ndarray, indexes: np.ndarray, table: CdfTable) -> bytes:
    return rans._rans.encode(rans._native(table), symbols, indexes)


def outcome(decoder: rans.Decoder | rans_reference.Decoder, calls: list[np.ndarray]) -> list[object]:
    """All that a caller sees of a decoder: symbols, then how it ends."""
    seen: list[object] = []
    try:
        seen += [decoder.decode(indexes).tolist() for indexes in calls]
        decoder.finish()
    except BitstreamError as error:
        seen.append(str(error))
    return seen


@needs_native
@given(cdf_tables(), st.data())
@settings(deadline=None)
def test_native_and_reference_write_the_same_bytes_and_read_them_back(
    table: CdfTable, data: st.DataObject
) -> None:
    symbols, indexes = draw_symbols(data, table, 2**31 - 1)
    assume((raw_escapes(symbols, indexes, table) < 2**32).all())
    stream = rans_reference.encode(symbols, indexes, table)
    assert native_encode(symbols, indexes, table) == stream
    cut = data.draw(st.integers(0, len(symbols)))
    calls = [indexes[:cut], indexes[cut:]]
    expected = [symbols[:cut].tolist(), symbols[cut:].tolist()]
    assert outcome(rans.Decoder(stream, table), calls) == expected
    assert outcome(rans_reference.Decoder(stream, table), calls) == expected


@given(cdf_tables(least_length=3), st.data())
@settings(deadline=None)
def test_the_bytes_are_those_of_compressai(table: CdfTable, data: st.DataObject) -> None:
    ans = pytest.importorskip("compressai.ans")
    symbols, indexes = draw_symbols(data, table, COMPRESSAI_RAW // 2 - 100, COMPRESSAI_LEAST)
    arguments = (indexes.tolist(), table.cdf.tolist(), table.lengths.tolist(), table.offsets.tolist())
    stream = ans.RansEncoder().encode_with_indexes(symbols.tolist(), *arguments)
    assert rans_reference.encode(symbols, indexes, table) == stream
    assert ans.RansDecoder().decode_with_indexes(stream, *arguments) == symbols.tolist()


@pytest.mark.parametrize("name", ["kodim05_q1", "kodim05_q3", "kodim05_q5.5", "kodim05_q8", "kodim05b_q8"])
def test_the_golden_strings_are_written_and_read(
    golden: Path, golden_tables: EntropyTables, coder: str, name: str
) -> None:
    vectors = np.load(golden / f"codec_{name}.npz")
    steps = np.split(vectors["indexes"], np.cumsum(vectors["step_sizes"])[:-1])
    y = rans.encode(vectors["symbols"], vectors["indexes"], golden_tables.latent)
    assert y == vectors["y_string"].tobytes()
    decoder = rans.Decoder(y, golden_tables.latent)
    decoded = [decoder.decode(indexes) for indexes in steps]
    decoder.finish()
    np.testing.assert_array_equal(np.concatenate(decoded), vectors["symbols"])

    symbols = vectors["z_symbols"][0]
    rows = golden_tables.hyper_indexes(*symbols.shape[1:])
    z = rans.encode(symbols.ravel(), rows, golden_tables.hyper)
    assert z == vectors["z_string"].tobytes()
    decoder = rans.Decoder(z, golden_tables.hyper)
    np.testing.assert_array_equal(decoder.decode(rows), symbols.ravel())
    decoder.finish()


# One row: values 0 and 1 of probability 1/4, an escape of 1/2; offset -1.
PLAIN = CdfTable(np.array([[0, 16384, 32768, 65536]]), np.array([4]), np.array([-1]))
ZERO = np.zeros(1, np.int32)


def one(symbol: int) -> np.ndarray:
    return np.array([symbol], np.int32)


def test_words_written_down_once_stay_the_same(coder: str) -> None:
    """The format's own golden words: a change here is a new bitstream version."""
    symbols = np.array([0, -1, 0, 7, -40, 2**20, 0, -1] * 2, np.int32)
    stream = rans.encode(symbols, np.zeros(16, np.int32), PLAIN)
    assert stream.hex() == "c1527442c2000002e6ffff23c112d1c9feff1f00"


def test_nothing_coded_is_the_first_state(coder: str) -> None:
    none = np.empty(0, np.int32)
    stream = rans.encode(none, none, PLAIN)
    assert stream == bytes([0, 0, 0, 128, 0, 0, 0, 0])
    decoder = rans.Decoder(stream, PLAIN)
    assert decoder.decode(none).tolist() == []
    decoder.finish()


@pytest.mark.parametrize("symbol", [-(2**31), -(2**31) + 1, 2**31 - 1, 2**31 - 2])
def test_the_ends_of_int32_are_coded_where_eight_digits_reach(coder: str, symbol: int) -> None:
    table = CdfTable(PLAIN.cdf, PLAIN.lengths, np.array([0]))
    stream = rans.encode(one(symbol), ZERO, table)
    decoder = rans.Decoder(stream, table)
    assert decoder.decode(ZERO).tolist() == [symbol]
    decoder.finish()


def test_a_symbol_too_far_from_its_row_cannot_be_coded(coder: str) -> None:
    far = CdfTable(PLAIN.cdf, PLAIN.lengths, np.array([1000]))
    with pytest.raises(BitstreamError, match="symbol -2147483648 is too far outside table row 0"):
        rans.encode(one(-(2**31)), ZERO, far)
    with pytest.raises(BitstreamError, match="beyond 32 bits"):
        rans.encode(np.array([2**31]), ZERO, PLAIN)


@pytest.mark.parametrize("offset", [-1000, 1000])
def test_an_escape_beyond_int32_is_refused(coder: str, offset: int) -> None:
    extreme = 2**31 - 1 if offset > 0 else -(2**31)
    stream = rans.encode(one(extreme), ZERO, CdfTable(PLAIN.cdf, PLAIN.lengths, np.array([0])))
    with pytest.raises(BitstreamError, match="a symbol beyond 32 bits"):
        rans.Decoder(stream, CdfTable(PLAIN.cdf, PLAIN.lengths, np.array([offset]))).decode(ZERO)


@pytest.mark.parametrize("digits", [9, 14, 15])
def test_an_escape_of_more_than_eight_digits_is_refused(coder: str, digits: int) -> None:
    # Slot 32768 + k is the escape's and leaves a state whose lowest digit is k's.
    state = 1 << 56 | 32768 + digits
    decoder = rans.Decoder(state.to_bytes(8, "little") + bytes(40), PLAIN)
    with pytest.raises(BitstreamError, match="an escape of more than 8 digits"):
        decoder.decode(ZERO)


def test_the_widest_and_the_narrowest_intervals_are_coded(coder: str) -> None:
    cdf = np.zeros((2, 65537), np.int32)
    cdf[0] = np.arange(65537)
    cdf[1, 1] = 65536
    table = CdfTable(cdf, np.array([65537, 2]), np.array([-30000, 3]))
    random = np.random.default_rng(2)
    symbols = random.integers(-40000, 40000, 2000).astype(np.int32)
    indexes = random.integers(0, 2, 2000).astype(np.int32)
    stream = rans.encode(symbols, indexes, table)
    assert stream == rans_reference.encode(symbols, indexes, table)
    decoder = rans.Decoder(stream, table)
    np.testing.assert_array_equal(decoder.decode(indexes), symbols)
    decoder.finish()


@pytest.mark.parametrize("row", [-1, 1, 2**31 - 1, -(2**31)])
def test_a_row_outside_the_table_is_refused(coder: str, row: int) -> None:
    with pytest.raises(BitstreamError, match=f"table row {row} was asked for, the table has 1"):
        rans.encode(ZERO, one(row), PLAIN)
    with pytest.raises(BitstreamError, match=f"table row {row} was asked for, the table has 1"):
        rans.Decoder(rans.encode(ZERO, ZERO, PLAIN), PLAIN).decode(one(row))


@pytest.mark.parametrize("data", [b"", bytes(4), bytes(7), bytes(9)])
def test_a_stream_of_no_possible_size_is_refused(coder: str, data: bytes) -> None:
    with pytest.raises(BitstreamError, match=f"a stream has {len(data)} bytes, expected a multiple of 4"):
        rans.Decoder(data, PLAIN)


@pytest.mark.parametrize("state", [0, 2**31 - 1, 2**63, 2**64 - 1])
def test_a_stream_that_starts_with_no_state_of_the_coder_is_refused(coder: str, state: int) -> None:
    with pytest.raises(BitstreamError, match="does not start with a state"):
        rans.Decoder(state.to_bytes(8, "little"), PLAIN)


def test_leftovers_are_found(coder: str, tables: EntropyTables, latent_symbols: tuple) -> None:
    symbols, indexes = latent_symbols
    stream = rans.encode(symbols, indexes, tables.latent)
    decoder = rans.Decoder(stream + bytes(4), tables.latent)
    decoder.decode(indexes)
    with pytest.raises(BitstreamError, match="1 words left"):
        decoder.finish()
    short = rans.Decoder(rans.encode(ZERO, ZERO, PLAIN), PLAIN)
    with pytest.raises(BitstreamError, match="does not end in the coder's first state"):
        short.finish()


def test_truncation_at_every_word_is_found(coder: str, tables: EntropyTables, latent_symbols: tuple) -> None:
    symbols, indexes = (a[:400] for a in latent_symbols)
    stream = rans.encode(symbols, indexes, tables.latent)
    for size in range(8, len(stream), 4):
        decoder = rans.Decoder(stream[:size], tables.latent)
        with pytest.raises(BitstreamError, match="ends before its last symbol"):
            decoder.decode(indexes)


def test_another_table_is_found(coder: str, tables: EntropyTables, latent_symbols: tuple) -> None:
    symbols, indexes = latent_symbols
    other = CdfTable(tables.latent.cdf[::-1], tables.latent.lengths[::-1], tables.latent.offsets[::-1])
    decoder = rans.Decoder(rans.encode(symbols, indexes, tables.latent), other)
    with pytest.raises(BitstreamError):
        decoder.decode(indexes)
        decoder.finish()


@needs_native
@given(st.binary(min_size=0, max_size=80), cdf_tables(), st.data())
@settings(deadline=None)
def test_garbage_ends_alike_in_both_coders(garbage: bytes, table: CdfTable, data: st.DataObject) -> None:
    rows = st.lists(st.integers(-1, table.rows), max_size=40)
    calls = [np.array(data.draw(rows), np.int32), np.array(data.draw(rows), np.int32)]
    ends = []
    for decoder in (rans.Decoder, rans_reference.Decoder):
        try:
            ends.append(outcome(decoder(garbage, table), calls))
        except BitstreamError as error:
            ends.append([str(error)])
    assert ends[0] == ends[1]


def test_arrays_of_other_kinds_are_programming_errors(coder: str) -> None:
    with pytest.raises(ValueError, match="symbols should be integers"):
        rans.encode(np.zeros(1), ZERO, PLAIN)
    with pytest.raises(ValueError, match="indexes should be integers"):
        rans.encode(ZERO, ZERO[None], PLAIN)
    with pytest.raises(ValueError, match="got 1 symbols and 2 indexes"):
        rans.encode(ZERO, np.zeros(2, np.int32), PLAIN)
    strided = np.zeros(6, np.uint8)[::2]
    assert rans.encode(strided, strided, PLAIN) == rans.encode(np.zeros(3, np.int32), np.zeros(3, int), PLAIN)


def test_the_environment_chooses_the_coder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLC_CODER", raising=False)
    assert rans.implementation() == ("python" if rans._rans is None else "native")
    monkeypatch.setenv("POLC_CODER", "python")
    assert rans.implementation() == "python"
    monkeypatch.setenv("POLC_CODER", "fast")
    with pytest.raises(UsageError, match="POLC_CODER is 'fast', expected native or python"):
        rans.implementation()
    monkeypatch.setenv("POLC_CODER", "native")
    monkeypatch.setattr(rans, "_rans", None)
    with pytest.raises(BackendUnavailable, match="install polc with a C\\+\\+ compiler"):
        rans.implementation()
    monkeypatch.delenv("POLC_CODER")
    assert rans.implementation() == "python"
    assert len(rans.encode(ZERO, ZERO, PLAIN)) == 8
