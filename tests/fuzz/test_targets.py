"""Every fuzz target on its seeds and on many damaged ones: what fuzzing does for hours, in seconds."""

from __future__ import annotations

import random
import time

import pytest
import seeds
from targets import TARGETS

from polc_runtime.bitstream import rans

ROUNDS = 150


@pytest.fixture(scope="module")
def corpus():
    pytest.importorskip("torch", reason="seeds of checkpoints are written by torch")
    return seeds.seeds()


def damaged(data, chance):
    """One to four edits as fuzzers make them: bits, bytes, extremes of integers, cuts, repeats."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        edit = chance.randrange(5)
        if edit == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif edit == 1:
            data[at : at + 1] = chance.randbytes(chance.randrange(3))
        elif edit == 2:
            extreme = chance.choice([b"\xff", b"\0", b"\x80", b"\x7f"]) * chance.choice([1, 2, 4, 8])
            data[at : at + len(extreme)] = extreme
        elif edit == 3:
            del data[at : at + chance.randrange(40)]
        else:
            data[at:at] = data[at : at + chance.randrange(40)]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_end_in_a_value_or_an_error_of_ours(corpus, name):
    if name == "rans_binding" and rans._rans is None:
        pytest.skip("the native coder is not built")
    chance = random.Random(name)
    for data in corpus[name]:
        TARGETS[name](data)
    for _ in range(ROUNDS):
        data = damaged(chance.choice(corpus[name]), chance)
        started = time.process_time()
        TARGETS[name](data)
        assert time.process_time() - started < 5, data.hex()


def test_seeds_are_the_same_every_time_and_small(corpus):
    again = seeds.seeds()
    changing = ["checkpoint_torch"]  # torch's older format names tensors by their addresses
    assert [name for name in corpus if corpus[name] != again[name]] in ([], changing)
    assert sum(len(data) for inputs in corpus.values() for data in inputs) < 200_000
    assert set(TARGETS) < set(corpus)
