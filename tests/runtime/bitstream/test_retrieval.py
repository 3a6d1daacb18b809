"""Retrieval: every key's bit comes back, in hardly more space than the bits, as docs/bitstream.md has it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polc_runtime.bitstream import rans
from polc_runtime.bitstream.retrieval import build, lookup


def plain_lookup(key: int, seed: int, solution: bytes) -> int:
    """docs/bitstream.md, section "Calibration", in integers of any size."""

    def mix(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    bits = int.from_bytes(solution, "little")
    m = 8 * len(solution)
    w = min(64, m)
    first = mix((256 * key + seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    start = (first >> 32) * (m - w + 1) >> 32
    mask = mix(first) % 2**w | 1
    return (bits >> start & mask).bit_count() & 1


@given(
    st.dictionaries(st.integers(0, 2**56 - 1), st.booleans(), max_size=300),
    st.lists(st.integers(0, 2**56 - 1), max_size=20),
)
@settings(deadline=None, max_examples=150)
def test_every_key_has_its_bit_and_other_keys_what_the_specification_gives(
    table: dict[int, bool], others: list[int]
) -> None:
    keys = np.array(list(table), np.int64)
    seed, solution = build(keys, np.array(list(table.values()), bool))
    assert lookup(keys, seed, solution).tolist() == [int(bit) for bit in table.values()]
    if table:
        found = lookup(np.array(others, np.int64), seed, solution).tolist()
        assert found == [plain_lookup(key, seed, solution) for key in others]


@pytest.mark.parametrize("count", [1, 8, 63, 64, 65, 100, 1000, 20000])
def test_space_is_that_of_the_bits_and_a_few_bytes(count: int) -> None:
    random = np.random.default_rng(count)
    keys = random.choice(10**8, count, replace=False)
    seed, solution = build(keys, random.integers(0, 2, count))
    assert 0 <= seed <= 255
    assert count / 8 <= len(solution) <= 1.06 * count / 8 + 2


def test_no_keys_take_no_space_and_give_zeros() -> None:
    assert build(np.empty(0, np.int64), np.empty(0, bool)) == (0, b"")
    assert lookup(np.arange(5), 0, b"").tolist() == [0] * 5


def test_a_structure_is_the_same_every_time() -> None:
    """Golden bytes: files that exist depend on them."""
    seed, solution = build(np.arange(0, 4000, 97), np.arange(42) % 3 == 0)
    assert (seed, solution.hex()) == GOLDEN


GOLDEN = (0, "b8aa40b16d00")


@pytest.mark.skipif(rans.native() is None, reason="the native coder was not built")
@pytest.mark.parametrize("count", [1, 7, 63, 500, 5000])
def test_the_native_solver_gives_the_plain_ones_bytes(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(count)
    keys = generator.choice(2**40, count, replace=False)
    bits = generator.integers(0, 2, count).astype(bool)
    found = []
    for implementation in ("native", "python"):
        monkeypatch.setenv("POLC_CODER", implementation)
        found.append(build(keys, bits))
    assert found[0] == found[1]


@pytest.mark.skipif(rans.native() is None, reason="the native coder was not built")
def test_the_native_solver_refuses_windows_beyond_the_solution() -> None:
    starts, masks = np.array([60], np.uint64), np.array([1 << 10], np.uint64)
    assert rans.native().solve(starts, masks, np.array([1], np.uint8), 8) is None
