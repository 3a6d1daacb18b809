"""Calibration: a decoder whose scales differ by no more than the tolerance takes the encoder's rows."""

from __future__ import annotations

import numpy as np
import pytest

from polc_runtime.bitstream.calibration import (
    LARGEST_EXPONENT,
    LEAST_EXPONENT,
    Calibration,
    CalibrationWriter,
    Decisions,
    Edges,
    Tolerances,
)

TABLE = np.exp(np.linspace(np.log(0.11), np.log(256), 64)).astype(np.float32)
COUNTS = (900, 1, 0, 300, 600, 600, 900, 900, 2000)


def rows_of(scales: np.ndarray) -> np.ndarray:
    return np.searchsorted(TABLE[:-1], scales, side="left").astype(np.int32)


def decisions(scales: list[np.ndarray]) -> list[Decisions]:
    firsts = np.cumsum([0, *(len(s) for s in scales)])
    return [Decisions(i, int(firsts[i]), s, rows_of(s)) for i, s in enumerate(scales)]


def scales_near_entries(random: np.random.Generator, exponents: tuple[int, ...]) -> list[np.ndarray]:
    """Half of them within a few tolerances of an entry, some exactly on it, some beyond the table's ends."""
    scales = []
    for count, exponent in zip(COUNTS, exponents, strict=True):
        wide = np.exp(random.uniform(np.log(0.01), np.log(1000), count))
        near = random.choice(TABLE, count) * (1 + random.uniform(-4, 4, count) * 2.0**-exponent)
        found = np.where(random.random(count) < 0.5, wide, near).astype(np.float32)
        found[: count // 20] = random.choice(TABLE, count // 20)
        found[-(count // 20) :] *= -1
        scales.append(found)
    return scales


def calibrated(scales: list[np.ndarray], exponents: tuple[int, ...]) -> Calibration:
    writer = CalibrationWriter(exponents, Edges(TABLE))
    for own in decisions(scales):
        writer.add(own)
    return Calibration.unpack(writer.finish().pack(), len(exponents))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("exponents", [(13,) * 9, (6,) * 9, (21,) * 9, (14, 12, 12, 12, 14, 14, 15, 15, 16)])
def test_scales_within_the_tolerance_give_the_encoders_rows(seed: int, exponents: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    scales = scales_near_entries(random, exponents)
    calibration = calibrated(scales, exponents)
    flips = 0
    for own, exponent in zip(decisions(scales), exponents, strict=True):
        largest = 2.0**-exponent - 1.5e-7  # of the entry, but for the rounding of the scales
        error = random.uniform(-1, 1, own.scales.size) * largest / (1 + 2 * largest)
        error[::3] = np.sign(error[::3]) * largest / (1 + 2 * largest)
        other = (own.scales * (1 + error)).astype(np.float32)
        theirs = Decisions(own.step, own.first, other, rows_of(other))
        flips += int((theirs.rows != own.rows).sum())
        np.testing.assert_array_equal(calibration.correct(theirs, Edges(TABLE)), own.rows)
    assert flips > 50 or exponents[0] == LARGEST_EXPONENT  # there was something to correct


def test_the_encoders_own_scales_give_its_rows() -> None:
    scales = scales_near_entries(np.random.default_rng(9), (13,) * 9)
    calibration = calibrated(scales, (13,) * 9)
    for own in decisions(scales):
        np.testing.assert_array_equal(calibration.correct(own, Edges(TABLE)), own.rows)


def test_scales_far_beyond_the_tolerance_are_not_saved() -> None:
    scales = scales_near_entries(np.random.default_rng(3), (13,) * 9)
    calibration = calibrated(scales, (13,) * 9)
    own = decisions(scales)[8]
    other = (own.scales * 1.01).astype(np.float32)
    found = calibration.correct(Decisions(8, own.first, other, rows_of(other)), Edges(TABLE))
    assert (found != own.rows).any()


@pytest.mark.parametrize("exponent", [LEAST_EXPONENT, 13, LARGEST_EXPONENT])
def test_near_finds_what_a_search_over_all_entries_finds(exponent: int) -> None:
    random = np.random.default_rng(exponent)
    scales = scales_near_entries(random, (exponent,) * 9)[8]
    where, below, above = Edges(TABLE).near(Decisions(0, 0, scales, rows_of(scales)), exponent)
    entries = TABLE[:-1].astype(np.float64)
    apart = np.abs(scales[:, None] - entries) / entries
    certain = np.abs(apart.min(1) * 2.0**exponent - 1) > 0.3  # float32 zones: the border itself is free
    expected = apart.min(1) <= 2.0**-exponent
    found = np.zeros(len(scales), bool)
    found[where] = True
    np.testing.assert_array_equal(found[certain], expected[certain])
    np.testing.assert_array_equal(below, apart[where].argmin(1))
    np.testing.assert_array_equal(above, scales[where] > TABLE[below])


def test_nothing_near_takes_six_bytes() -> None:
    writer = CalibrationWriter((13,) * 9, Edges(TABLE))
    scales = np.full(100, 0.01, np.float32)
    writer.add(Decisions(0, 0, scales, rows_of(scales)))
    assert writer.finish() == Calibration((13,) * 9, 0, b"")
    assert len(writer.finish().pack()) == 6


def test_between_two_qualities_the_larger_tolerance_of_both_holds() -> None:
    low, high = (14, *[13] * 8), (12, *[15] * 8)
    tolerances = Tolerances(((2.0, low), (6.0, high)))
    assert tolerances.at(1) == tolerances.at(2) == low
    assert tolerances.at(6) == tolerances.at(8) == high
    assert tolerances.at(3.5) == (12, *[13] * 8)
