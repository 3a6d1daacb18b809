"""Static retrieval: one bit for each key of a set, in about 1.02 bits; the keys are not stored.

Asked about a key of the set, the structure gives its bit; asked about another, any bit. It is a ribbon
retrieval structure (Dillinger and Walzer, "Ribbon filter: practically smaller than Bloom and Xor",
arXiv:2103.02515): each key names a window of 64 neighbouring bits of a solution, and a mask; its bit is the
parity of what the mask leaves of the window, and the encoder solves the linear equations of all keys.
docs/bitstream.md specifies it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import rans

Words = NDArray[np.uint64]

MAX_SEED = 255
_WINDOW = 64
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SEEDS_A_SIZE = 4


def build(keys: NDArray[Any], bits: NDArray[Any]) -> tuple[int, bytes]:
    """Finds a seed and a solution for which `lookup` gives every key its bit.

    Args:
        keys: distinct integers [n], 0..2^56 - 1.
        bits: 0 or 1 for each, [n].

    Returns:
        The seed, 0..255, and the solution: n / 8 bytes and a few more; none for no keys.
    """
    size = -(-len(keys) // 8) + len(keys) // 512  # less would seldom do
    if not size:
        return 0, b""
    for seed in range(MAX_SEED + 1):
        solution = _solve(keys, bits, seed, size)
        if solution is not None:
            return seed, solution
        if seed % _SEEDS_A_SIZE == _SEEDS_A_SIZE - 1:
            size += 1 + size // 64
    raise AssertionError("no seed gives equations that can be solved")  # the last sizes are twice the bits


def lookup(keys: NDArray[Any], seed: int, solution: bytes) -> NDArray[np.int32]:
    """The bit of each key: the one that was built for it, or any for keys that were not there.

    Args:
        keys: integers [n], 0..2^56 - 1.
        seed: of `build`.
        solution: of `build`; without a byte every bit is 0.
    """
    if not solution or not len(keys):
        return np.zeros(len(keys), np.int32)
    starts, masks = _equations(keys, seed, len(solution))
    padded = np.frombuffer(solution + bytes(_WINDOW // 8 + 1), np.uint8)
    spans = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW // 8 + 1)[starts >> np.uint64(3)]
    low = np.ascontiguousarray(spans[:, :8]).view("<u8")[:, 0].astype(np.uint64)
    shift = starts & np.uint64(7)
    high = np.where(shift > 0, spans[:, 8].astype(np.uint64) << (np.uint64(64) - shift) % np.uint64(64), 0)
    parity = (low >> shift | high.astype(np.uint64)) & masks
    for fold in (32, 16, 8, 4, 2, 1):
        parity ^= parity >> np.uint64(fold)
    return (parity & np.uint64(1)).astype(np.int32)


def _equations(keys: NDArray[Any], seed: int, size: int) -> tuple[Words, Words]:
    """First bit of each key's window, and the mask over it; the mask's lowest bit is always set."""
    width = min(_WINDOW, 8 * size)
    first = _mix((keys.astype(np.uint64) * np.uint64(256) + np.uint64(seed + 1)) * np.uint64(_GOLDEN))
    starts = (first >> np.uint64(32)) * np.uint64(8 * size - width + 1) >> np.uint64(32)
    masks = _mix(first) & np.uint64((1 << width) - 1) | np.uint64(1)
    return starts, masks


def _mix(words: Words) -> Words:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, in Stafford's variant 13)."""
    words = (words ^ words >> np.uint64(30)) * np.uint64(_MULTIPLIERS[0])
    words = (words ^ words >> np.uint64(27)) * np.uint64(_MULTIPLIERS[1])
    return words ^ words >> np.uint64(31)


def _solve(keys: NDArray[Any], bits: NDArray[Any], seed: int, size: int) -> bytes | None:
    """Solves the keys' equations over GF(2) by elimination within the band; None where they contradict."""
    starts, masks = _equations(keys, seed, size)
    order = np.argsort(starts, kind="stable")
    if rans.implementation() == "native":
        sides = bits[order].astype(np.uint8)
        solved: bytes | None = rans.native().solve(starts[order], masks[order], sides, size)
        return solved
    return _solve_in_python(starts[order], masks[order], bits[order].astype(int), size)


def _solve_in_python(starts: Words, masks: Words, bits: NDArray[Any], size: int) -> bytes | None:
    """As the native solver: the equations come in the order of their starts."""
    pivots, sides = [0] * (8 * size), [0] * (8 * size)  # the equation whose window begins at a bit
    for start, mask, side in zip(starts.tolist(), masks.tolist(), bits.tolist(), strict=True):
        while mask:
            skipped = (mask & -mask).bit_length() - 1
            start, mask = start + skipped, mask >> skipped
            if not pivots[start]:
                pivots[start], sides[start] = mask, side
                break
            mask, side = mask ^ pivots[start], side ^ sides[start]
        else:
            if side:
                return None
    solution = np.zeros(8 * size, np.uint8)
    window = 0  # the bits behind the present one, the nearest lowest
    for start in reversed(range(8 * size)):
        window = window << 1 & (1 << _WINDOW) - 1
        window |= ((pivots[start] & window).bit_count() + sides[start]) & 1
        solution[start] = window & 1
    return np.packbits(solution, bitorder="little").tobytes()
