"""Tiles cover an image once, overlap by the reach, and stay within the bound on their size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polc_runtime import BundleError
from polc_runtime.codec.tiles import TILE_PIXELS, Reach, tiles

BASE = {"depths": [2, 2, 6, 2], "hyper_depths": [2, 2], "kernel_size": 7, "hyper_kernel_size": 3}
REACH_OF_BASE = Reach(y=304, z=576, image=292)

sides = st.integers(3, 80).map(lambda n: 64 * n)
reaches = st.integers(0, 320)
leasts = st.sampled_from((192, 320))
bounds = st.integers(64**2, 2000**2)


def up(pixels):
    return -(-pixels // 64) * 64


def side(span):
    return span.stop - span.start


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_every_pixel_is_kept_once(height, width, reach, least, bound):
    kept = np.zeros((height // 64, width // 64), int)
    for tile in tiles(height, width, reach, least, bound):
        kept[tile.rows.kept(64), tile.columns.kept(64)] += 1
    assert np.all(kept == 1)


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_tiles_are_aligned_of_one_size_and_inside_the_image(height, width, reach, least, bound):
    cut = tiles(height, width, reach, least, bound)
    assert len({(side(tile.rows), side(tile.columns)) for tile in cut}) == 1
    for tile in cut:
        for span, length in ((tile.rows, height), (tile.columns, width)):
            edges = (span.start, span.keep_start, span.keep_stop, span.stop)
            assert all(edge % 64 == 0 for edge in edges)
            assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= length


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_nothing_is_kept_within_reach_of_a_cut_edge(height, width, reach, least, bound):
    for tile in tiles(height, width, reach, least, bound):
        for span, length in ((tile.rows, height), (tile.columns, width)):
            assert span.start == span.keep_start == 0 or span.keep_start - span.start >= reach
            assert span.stop == span.keep_stop == length or span.stop - span.keep_stop >= reach
            assert side(span) == length or side(span) >= 2 * reach + least


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_tiles_are_within_the_bound_or_as_small_as_the_reach_permits(height, width, reach, least, bound):
    tile = tiles(height, width, reach, least, bound)[0]
    area = side(tile.rows) * side(tile.columns)
    smallest = [min(length, up(2 * up(reach) + least)) for length in (height, width)]
    assert area <= max(bound, smallest[0] * smallest[1])


@settings(deadline=None)
@given(sides, sides, reaches, leasts)
def test_an_image_within_the_bound_is_one_tile(height, width, reach, least):
    (tile,) = tiles(height, width, reach, least, height * width)
    assert (side(tile.rows), side(tile.columns)) == (height, width)


def test_an_axis_is_left_whole_where_that_is_less_work():
    cut = tiles(4096, 256, 320, 192, 1024 * 256)
    assert {(side(tile.rows), side(tile.columns)) for tile in cut} == {(1024, 256)} and len(cut) == 9


def test_the_last_tile_ends_with_the_image():
    last = tiles(4096, 4032, 304, 192, TILE_PIXELS)[-1]
    assert (last.rows.stop, last.columns.stop) == (4096, 4032)


def test_reach_of_the_full_size_model():
    assert Reach.of(BASE) == REACH_OF_BASE


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"depths": None}, "depths is missing"),
        ({"depths": [2, 2, 6]}, "depths is .*expected 4 whole numbers"),
        ({"depths": [2, 2, 6, -1]}, "depths is .*expected 4 whole numbers from 0 to"),
        ({"depths": [2, 2, 6, True]}, "depths is"),
        ({"depths": [2, 2, 6, 10**9]}, "depths is"),
        ({"hyper_depths": [2, 2.5]}, "hyper_depths is"),
        ({"kernel_size": "7"}, "kernel_size is"),
        ({"hyper_kernel_size": 0}, "hyper_kernel_size is"),
    ],
)
def test_dimensions_that_are_not_usable_are_named(change, named):
    with pytest.raises(BundleError, match=named):
        Reach.of({**BASE, **change})
