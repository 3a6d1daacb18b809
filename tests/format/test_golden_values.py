"""Golden values that need no network: streams, orders of symbols and calibrations stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plain_decoder
import plain_encoder
import plain_plan
import pytest
from golden_format import load_record, symbol_hash
from plain_plan import joined, step_views

from polc_runtime.bitstream import rans, retrieval
from polc_runtime.bitstream.calibration import Calibration, Decisions, Edges
from polc_runtime.bitstream.container import join_streams, split_streams
from polc_runtime.bitstream.schedule import gather, nine_steps
from polc_runtime.bitstream.tables import CdfTable
from polc_runtime.errors import BitstreamError

RECORD = load_record()
STREAMS: dict[str, Any] = RECORD["streams"]["cases"]
ROWS: list[list[int]] = RECORD["streams"]["table"]
OFFSETS: list[int] = RECORD["streams"]["offsets"]


@pytest.fixture(params=["native", "python"])
def coder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test once with each of polc's coders."""
    if request.param == "native" and rans._rans is None:
        pytest.skip("the native coder is not built")
    monkeypatch.setenv("POLC_CODER", request.param)
    return request.param


def padded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cdf = np.zeros((len(ROWS), max(map(len, ROWS))), np.int32)
    for row, values in zip(cdf, ROWS, strict=True):
        row[: len(values)] = values
    return cdf, np.array([len(row) for row in ROWS], np.int32), np.array(OFFSETS, np.int32)


TABLE, PLAIN_TABLE = CdfTable(*padded()), plain_decoder.Table(*padded())


def polc_begin(data: bytes, rows: list[int]) -> list[int]:
    symbols: list[int] = rans.Decoder(data, TABLE).decode(np.array(rows, np.int32)).tolist()
    return symbols


def plain_begin(data: bytes, rows: list[int]) -> list[int]:
    return plain_decoder.Stream(data).symbols(rows, PLAIN_TABLE)


def polc_decode(data: bytes, rows: list[int]) -> list[int]:
    decoder = rans.Decoder(data, TABLE)
    symbols = decoder.decode(np.array(rows, np.int32)).tolist()
    decoder.finish()
    return symbols


def plain_decode(data: bytes, rows: list[int]) -> list[int]:
    stream = plain_decoder.Stream(data)
    symbols = stream.symbols(rows, PLAIN_TABLE)
    stream.finish()
    return symbols


def attempt(
    decode: Callable[[bytes, list[int]], list[int]], data: bytes, rows: list[int]
) -> list[int] | None:
    """The symbols, or None for an error."""
    try:
        return decode(data, rows)
    except (BitstreamError, ValueError):
        return None


@pytest.mark.parametrize("name", STREAMS)
def test_both_decode_the_recorded_symbols_of_streams(name: str, coder: str) -> None:
    case = STREAMS[name]
    data = bytes.fromhex(case["bytes"])
    assert polc_decode(data, case["rows"]) == plain_decode(data, case["rows"]) == case["symbols"]


@pytest.mark.parametrize("name", [name for name, case in STREAMS.items() if case["as_encoded"]])
def test_polc_and_the_documents_encoder_write_the_recorded_bytes(name: str, coder: str) -> None:
    case = STREAMS[name]
    symbols, rows = (np.array(case[key], np.int32) for key in ("symbols", "rows"))
    plain = plain_encoder.encode_symbols(case["symbols"], case["rows"], ROWS, OFFSETS)
    assert rans.encode(symbols, rows, TABLE).hex() == plain.hex() == case["bytes"]


def test_several_streams_are_dealt_out_as_recorded(coder: str) -> None:
    case = RECORD["several_streams"]
    data, count = bytes.fromhex(case["bytes"]), 3
    steps = [tuple(np.array(step[key], np.int32) for key in ("symbols", "rows")) for step in case["steps"]]
    assert join_streams(rans.encode_streams(steps, TABLE, count)) == data  # type: ignore[arg-type]
    decoder = rans.StreamsDecoder(split_streams(data, count), TABLE)
    streams = plain_decoder.split_streams(data, count * 2**16)
    for symbols, rows in steps:
        cuts = [j * len(rows) // count for j in range(count + 1)]
        plain: list[int] = []
        for stream, start, end in zip(streams, cuts, cuts[1:], strict=False):
            plain += stream.symbols(rows[start:end].tolist(), PLAIN_TABLE)
        assert decoder.decode(rows).tolist() == plain == symbols.tolist()
    decoder.finish()
    for stream in streams:
        stream.finish()


LONG = [(0, 65536, 16), (9, 1, 4), *[(1, 1, 4)] * 9]
BEYOND = [(65500, 36, 16), (8, 1, 4), (14, 1, 4), *[(15, 1, 4)] * 7]
GOOD = bytes.fromhex(STREAMS["escapes"]["bytes"])
BAD_STREAMS = {
    "nothing": (b"", [1]),
    "one word": (GOOD[:4], [1]),
    "cut by a word": (GOOD[:-4], STREAMS["escapes"]["rows"]),
    "cut by a byte": (GOOD[:-1], STREAMS["escapes"]["rows"]),
    "a word left": (GOOD + bytes(4), STREAMS["escapes"]["rows"]),
    "symbols left": (GOOD, STREAMS["escapes"]["rows"][:-1]),
    "more symbols asked for": (GOOD, [*STREAMS["escapes"]["rows"], 1]),
    "state too small": (b"\xff\xff\xff\x7f" + bytes(4), []),
    "state too large": (bytes(7) + b"\x80", []),
    "ends in another state": (b"\x01\x00\x00\x80" + bytes(4), []),
    "an escape of nine digits": (plain_encoder.encode(LONG), [1]),
    "a symbol beyond 32 bits": (plain_encoder.encode(BEYOND), [3]),
}


@pytest.mark.parametrize("name", BAD_STREAMS)
def test_a_malformed_stream_is_an_error_in_both(name: str, coder: str) -> None:
    data, rows = BAD_STREAMS[name]
    with pytest.raises(BitstreamError):
        polc_decode(data, rows)
    with pytest.raises(ValueError, match="stream|escape|symbol"):
        plain_decode(data, rows)


def test_both_make_the_same_of_streams_that_nobody_encoded(coder: str) -> None:
    random = np.random.default_rng(11)
    decoded = 0
    for _ in range(1000):
        data = random.bytes(4 * int(random.integers(1, 12)))
        rows = random.integers(0, len(ROWS), int(random.integers(0, 20))).tolist()
        expected = attempt(plain_begin, data, rows)
        assert attempt(polc_begin, data, rows) == expected
        decoded += bool(expected)
    assert 50 < decoded < 500


@pytest.mark.parametrize("case", RECORD["order"], ids=lambda case: f"{case['channels']} channels")
def test_steps_write_the_recorded_places(case: dict[str, Any]) -> None:
    channels, rows, columns = case["channels"], case["rows"], case["columns"]
    latent = np.arange(channels * rows * columns).reshape(channels, rows, columns)
    plain = [joined(step_views(latent, step)) for step in plain_plan.nine_steps(channels)]
    polc = [gather(latent, step).ravel() for step in nine_steps(channels)]
    assert [symbol_hash(part) for part in polc] == [symbol_hash(part) for part in plain] == case["steps"]
    assert np.array_equal(np.sort(np.concatenate(polc)), latent.ravel())


@pytest.mark.parametrize("case", RECORD["lookups"], ids=lambda case: f"{len(case['content']) // 2} bytes")
def test_lookups_give_the_recorded_answers(case: dict[str, Any]) -> None:
    content, answers = bytes.fromhex(case["content"]), [int(answer) for answer in case["answers"]]
    polc, plain = Calibration.unpack(content, 9), plain_decoder.Calibration(content)
    keys = np.array(case["keys"], np.int64)
    assert retrieval.lookup(keys, polc.seed, polc.solution).tolist() == answers
    assert [plain.lookup(key) for key in case["keys"]] == answers


def test_calibration_gives_the_recorded_rows() -> None:
    case = RECORD["calibrated_rows"]
    content, table = bytes.fromhex(case["content"]), np.array(case["table"], np.float32)
    polc, plain, edges = Calibration.unpack(content, 9), plain_decoder.Calibration(content), Edges(table)
    assert polc.pack() == content
    assert list(polc.exponents) == plain.exponents == [6, 7, 9, 11, 13, 15, 17, 19, 21]
    first = changed = 0
    for step, recorded in enumerate(case["steps"]):
        scales = np.array(recorded["scales"], np.float32)
        own = plain_decoder.own_rows(scales, table)
        polc_rows = polc.correct(Decisions(step, first, scales, own.astype(np.int32)), edges)
        assert polc_rows.tolist() == recorded["rows"]
        assert plain.rows(scales, own, table, step, first).tolist() == recorded["rows"]
        changed += int((own != recorded["rows"]).sum())
        first += len(scales)
    assert changed > 10


@pytest.mark.parametrize("content", [b"", bytes(5), bytes(4) + b"\x10" + bytes(9)])
def test_a_malformed_calibration_is_an_error_in_both(content: bytes) -> None:
    with pytest.raises(BitstreamError):
        Calibration.unpack(content, 9)
    with pytest.raises(ValueError, match="calibration"):
        plain_decoder.Calibration(content)


def test_polc_builds_the_recorded_solution() -> None:
    case = RECORD["retrieval"]
    seed, solution = retrieval.build(np.array(case["keys"]), np.array(case["bits"]))
    assert (seed, solution.hex()) == (case["seed"], case["solution"])
    plain = plain_decoder.Calibration(bytes([0] * 5 + [seed]) + solution)
    assert [plain.lookup(key) for key in case["keys"]] == case["bits"]
