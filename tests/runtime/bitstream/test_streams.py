from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from polc_runtime.bitstream import pool, rans
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.errors import BitstreamError

Steps = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def steps(latent_symbols: tuple[np.ndarray, np.ndarray]) -> Steps:
    symbols, indexes = latent_symbols
    cuts = [3, 3, 100, 1000, 4000]
    return list(zip(np.split(symbols, cuts), np.split(indexes, cuts), strict=True))


@pytest.fixture(params=[False, True], ids=["one thread", "threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(rans, "_PARALLEL_FROM", 0 if request.param else 2**60)
    monkeypatch.setattr(pool, "workers", lambda: 3)
    return request.param


def test_the_number_of_streams_follows_the_number_of_symbols() -> None:
    counts = {
        n: rans.stream_count(n) for n in (0, 1, 2**16, 2**17 - 1, 2**17, 491520, 2**20, 2**20 - 1, 2**30)
    }
    assert list(counts.values()) == [1, 1, 1, 1, 2, 7, 16, 15, 16]


@pytest.mark.parametrize("streams", [1, 2, 7, 16])
def test_steps_come_back_from_their_streams(
    coder: str, threads: bool, tables: EntropyTables, steps: Steps, streams: int
) -> None:
    coded = rans.encode_streams(steps, tables.latent, streams)
    assert len(coded) == streams
    decoder = rans.StreamsDecoder(coded, tables.latent)
    for symbols, indexes in steps:
        np.testing.assert_array_equal(decoder.decode(indexes), symbols)
    decoder.finish()


def test_range_j_of_every_step_goes_to_stream_j(tables: EntropyTables, steps: Steps) -> None:
    coded = rans.encode_streams(steps, tables.latent, 3)
    for j in range(3):
        ranges = [slice(j * len(s) // 3, (j + 1) * len(s) // 3) for s, _ in steps]
        symbols = np.concatenate([s[r] for (s, _), r in zip(steps, ranges, strict=True)])
        indexes = np.concatenate([i[r] for (_, i), r in zip(steps, ranges, strict=True)])
        assert coded[j] == rans.encode(symbols, indexes, tables.latent)


def test_one_stream_is_all_symbols_in_order(
    tables: EntropyTables, steps: Steps, latent_symbols: tuple[np.ndarray, np.ndarray]
) -> None:
    assert rans.encode_streams(steps, tables.latent, 1) == [rans.encode(*latent_symbols, tables.latent)]


def test_a_damaged_stream_among_many_is_found(
    coder: str, threads: bool, tables: EntropyTables, steps: Steps
) -> None:
    coded = rans.encode_streams(steps, tables.latent, 4)
    coded[2] = coded[2][:-4]
    decoder = rans.StreamsDecoder(coded, tables.latent)
    with pytest.raises(BitstreamError, match="ends before its last symbol"):
        for _, indexes in steps:
            decoder.decode(indexes)


def test_symbols_left_undecoded_are_found(tables: EntropyTables, steps: Steps) -> None:
    decoder = rans.StreamsDecoder(rans.encode_streams(steps, tables.latent, 4), tables.latent)
    for _, indexes in steps[:-1]:
        decoder.decode(indexes)
    with pytest.raises(BitstreamError, match="words left after its symbols"):
        decoder.finish()


def test_no_streams_and_unequal_steps_are_refused(tables: EntropyTables) -> None:
    with pytest.raises(BitstreamError, match="no streams"):
        rans.StreamsDecoder([], tables.latent)
    with pytest.raises(ValueError, match="got 2 symbols and 3 indexes"):
        rans.encode_streams([(np.zeros(2, int), np.zeros(3, int))], tables.latent, 2)


def test_a_latent_without_steps_has_empty_streams(tables: EntropyTables) -> None:
    streams = rans.encode_streams([], tables.latent, 2)
    assert streams == [b"\0\0\0\x80\0\0\0\0"] * 2
    rans.StreamsDecoder(streams, tables.latent).finish()


def test_several_threads_may_code_at_once(threads: bool, tables: EntropyTables, steps: Steps) -> None:
    expected = rans.encode_streams(steps, tables.latent, 5)
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            coded = rans.encode_streams(steps, tables.latent, 5)
            decoder = rans.StreamsDecoder(coded, tables.latent)
            same = all((decoder.decode(i) == s).all() for s, i in steps)
            if coded != expected or not same:
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_the_pool_keeps_order_and_passes_errors_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "workers", lambda: 4)
    assert pool.in_parallel(lambda j: j * j, 11) == [j * j for j in range(11)]
    assert pool.in_parallel(lambda j: j, 0) == []

    def fail(j: int) -> int:
        if j in (4, 10):
            raise BitstreamError(f"stream {j}")
        return j

    with pytest.raises(BitstreamError, match="stream 4"):
        pool.in_parallel(fail, 11)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_has_a_pool_of_its_own() -> None:
    script = """
import os
from polc_runtime.bitstream import pool
pool.workers = lambda: 3
pool.in_parallel(lambda j: j, 6)
child = os.fork()
if child == 0:
    os._exit(0 if pool.in_parallel(lambda j: j, 6) == list(range(6)) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=60, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
