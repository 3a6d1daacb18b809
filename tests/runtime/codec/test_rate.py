"""The search for the quality that a number of bytes allows."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polc_runtime import Codec
from polc_runtime.codec.rate import (
    STEPS,
    RateGoal,
    bytes_for_bpp,
    largest_quality_within,
    largest_quality_within_bpp,
    largest_rung_within,
)
from polc_runtime.errors import UsageError

MAX_CALLS = 26
"""Of the search over qualities 1 to 8: it halves what is left with every second call."""


class Encoder:
    """Files of the sizes a function gives; keeps the qualities asked for."""

    def __init__(self, size):
        self.size, self.asked = size, []

    def __call__(self, quality):
        self.asked.append(quality)
        return bytes(self.size(quality))


def curve(base=4000.0, slope=0.35, bend=-0.015, noise=0.0, seed=0):
    """A size that grows as exp(slope q + bend q^2), like a codec's, times a random factor."""

    def size(quality):
        q = quality - 1
        factor = 1 + noise * random.Random(f"{seed} {float(quality)}").uniform(-1, 1)
        return max(1, round(base * math.exp(slope * q + bend * q * q) * factor))

    return size


def check(encoder, max_bytes, quality, data, tolerance=0.01):
    """The three senses in which the docstring calls the result the best."""
    assert len(data) <= max_bytes and len(data) == encoder.size(quality)
    assert (quality * STEPS).is_integer() and 1 <= quality <= 8
    assert len(encoder.asked) == len(set(encoder.asked)) <= MAX_CALLS
    close = len(data) >= (1 - tolerance) * max_bytes
    assert quality == 8 or close or encoder.size(quality + 1 / STEPS) > max_bytes


@settings(max_examples=300, deadline=None)
@given(
    base=st.floats(60, 50_000),
    slope=st.floats(0.1, 0.8),
    bend=st.floats(-0.03, 0.03),
    noise=st.sampled_from([0.0, 0.002, 0.03]),
    at=st.floats(0, 1.1),
    seed=st.integers(0, 1000),
)
@example(base=60, slope=0.1, bend=0.0, noise=0.03, at=0.5, seed=1)
def test_the_result_fits_and_is_the_best_in_one_of_three_senses(base, slope, bend, noise, at, seed):
    encoder = Encoder(curve(base, slope, bend, noise, seed))
    max_bytes = round(encoder.size(1) ** (1 - at) * encoder.size(8) ** at)
    if max_bytes >= encoder.size(1):
        check(encoder, max_bytes, *largest_quality_within(encoder, max_bytes))


@pytest.mark.parametrize("seed", range(20))
def test_sizes_without_any_order_still_give_a_file_that_fits(seed):
    def size(quality):
        return random.Random(f"{seed} {quality}").choice([1, 10, 400, 600, 5000]) if quality > 1 else 1

    encoder = Encoder(size)
    check(encoder, 500, *largest_quality_within(encoder, 500, tolerance=0), tolerance=0)


@pytest.mark.parametrize("edge", [257, 300, 1024, 1500, 2047, 2048])
def test_a_cliff_is_found_to_the_step(edge):
    encoder = Encoder(lambda quality: 100 if quality * STEPS < edge else 1_000_000)
    quality, _ = largest_quality_within(encoder, 5000)
    assert quality * STEPS == edge - 1
    assert len(encoder.asked) <= MAX_CALLS


def test_a_codec_like_curve_takes_few_calls():
    calls = []
    for base in (500, 5000, 50_000):
        for slope in (0.2, 0.35, 0.5):
            for at in (0.1, 0.3, 0.5, 0.7, 0.9):
                encoder = Encoder(curve(base, slope, noise=0.001))
                largest_quality_within(encoder, round(encoder.size(1) ** (1 - at) * encoder.size(8) ** at))
                calls.append(len(encoder.asked))
    assert sum(calls) / len(calls) <= 5 and max(calls) <= 9


def test_a_limit_above_every_size_gives_the_highest_quality_in_two_calls():
    encoder = Encoder(curve())
    assert largest_quality_within(encoder, 10**9)[0] == 8
    assert len(encoder.asked) == 2


def test_a_limit_of_exactly_the_least_size_gives_the_lowest_quality():
    size = curve(base=100, slope=0.35)
    quality, data = largest_quality_within(Encoder(size), size(1))
    assert len(data) == size(1) and size(quality) == size(1)


def test_a_limit_that_cannot_be_reached_says_the_least_size():
    with pytest.raises(
        UsageError, match="^the smallest file, at quality 1, has 4000 bytes; 3999 bytes are too few$"
    ):
        largest_quality_within(Encoder(curve()), 3999)


def test_the_range_of_another_bundle_is_kept():
    encoder = Encoder(curve())
    assert largest_quality_within(encoder, 10**9, 2.0, 3.5)[0] == 3.5
    with pytest.raises(UsageError, match="at quality 2, has"):
        largest_quality_within(encoder, 10, 2.0, 3.5)
    assert all(2 <= quality <= 3.5 for quality in encoder.asked)


def test_a_range_of_one_quality_needs_one_call():
    encoder = Encoder(curve())
    assert largest_quality_within(encoder, 10**9, 3.0, 3.0)[0] == 3.0
    assert encoder.asked == [3.0]


@settings(max_examples=100, deadline=None)
@given(st.floats(0.2, 4), st.integers(50, 700), st.integers(50, 700))
def test_bpp_counts_the_bits_of_the_whole_file_for_each_pixel(bpp, width, height):
    encoder = Encoder(curve(base=width * height * 0.2 / 8))
    if Fraction(encoder.size(1) * 8, width * height) > bpp:
        return
    quality, data = largest_quality_within_bpp(encoder, bpp, width, height)
    assert Fraction(len(data) * 8, width * height) <= Fraction(repr(bpp))
    check(encoder, bytes_for_bpp(bpp, width, height), quality, data)


def test_bpp_is_what_its_decimals_say():
    assert bytes_for_bpp(0.1, 80, 10) == 10  # 0.1 as a binary fraction times 800 / 8 might be just below 10
    assert bytes_for_bpp(0.7, 800, 1) == 70
    assert bytes_for_bpp(1.1, 80, 100) == 1100


def test_a_bpp_that_cannot_be_reached_says_the_least_rate():
    with pytest.raises(
        UsageError,
        match=r"^the smallest file, at quality 1, has 3\.2 bpp \(4000 bytes\); 0\.1 bpp is too low$",
    ):
        largest_quality_within_bpp(Encoder(curve()), 0.1, 100, 100)


@pytest.mark.parametrize("huge", [10**400, 2**62])
def test_more_bytes_than_a_float_holds_give_the_largest_quality(huge):
    assert largest_quality_within(Encoder(curve()), huge)[0] == 8
    assert largest_quality_within_bpp(Encoder(curve()), 1e308, 100, 100)[0] == 8


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_of_a_ladder_the_largest_quality_that_fits_is_found(count):
    qualities = range(1, count + 1)
    for most in (*(100 * quality for quality in qualities), 150, 10**6):
        encoder = Encoder(lambda quality: 100 * quality)
        quality, data = largest_rung_within(encoder, most, qualities)
        assert quality == min(most // 100, count) and len(data) == 100 * quality
        assert len(encoder.asked) <= math.log2(count) + 1
    with pytest.raises(
        UsageError, match="^the smallest file, at quality 1, has 100 bytes; 99 bytes are too few"
    ):
        largest_rung_within(Encoder(lambda quality: 100 * quality), 99, qualities)


def test_a_goal_is_one_of_three_or_none():
    RateGoal()
    for goals in ({"quality": 3, "bpp": 1}, {"bpp": 1, "max_bytes": 9}, {"quality": 3, "max_bytes": 9}):
        with pytest.raises(UsageError, match="=... and .*=... are mutually exclusive; give one of them"):
            RateGoal(**goals)


@pytest.mark.parametrize("name", ["quality", "bpp", "max_bytes"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_a_goal_is_a_positive_number(name, value):
    with pytest.raises(UsageError, match=f"^{name}=... must be a positive number, got {value}"):
        RateGoal(**{name: value})


@pytest.fixture(scope="module")
def codec():
    with Codec.load("nano", threads=1) as codec:
        yield codec


def test_a_quality_outside_of_the_bundles_range_is_refused_with_the_range(codec):
    RateGoal(8.0).check(codec.plan.quality)
    with pytest.raises(UsageError, match="must lie between 1 and 8, got 8.5$"):
        RateGoal(8.5).check(codec.plan.quality)
    RateGoal(max_bytes=1).check(codec.plan.quality)


def test_a_goal_encodes_as_the_codec_does_at_the_quality_it_returns(codec):
    pixels = np.random.default_rng(0).integers(0, 256, (100, 70, 3), np.uint8)
    default = codec.compress(pixels)
    assert RateGoal().encode(codec, pixels) == (codec.plan.quality.default, default)
    assert RateGoal(2.3).encode(codec, pixels, portable=False) == (
        round(2.3 * STEPS) / STEPS,
        codec.compress(pixels, 2.3, portable=False),
    )
    for goal in (RateGoal(max_bytes=len(default)), RateGoal(bpp=8 * len(default) / pixels[..., 0].size)):
        quality, data = goal.encode(codec, pixels)
        assert len(data) <= len(default) and data == codec.compress(pixels, quality)
