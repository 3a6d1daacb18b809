"""Tiles cover an image once, overlap by the reach, and stay within the bound on their size."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from polc_runtime.codec.tiles import TILE_PIXELS, tiles

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
    for tile in tiles(height, width, reach, least, bound, 64):
        kept[tile.rows.kept(64), tile.columns.kept(64)] += 1
    assert np.all(kept == 1)


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_tiles_are_aligned_of_one_size_and_inside_the_image(height, width, reach, least, bound):
    cut = tiles(height, width, reach, least, bound, 64)
    assert len({(side(tile.rows), side(tile.columns)) for tile in cut}) == 1
    for tile in cut:
        for span, length in ((tile.rows, height), (tile.columns, width)):
            edges = (span.start, span.keep_start, span.keep_stop, span.stop)
            assert all(edge % 64 == 0 for edge in edges)
            assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= length


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_nothing_is_kept_within_reach_of_a_cut_edge(height, width, reach, least, bound):
    for tile in tiles(height, width, reach, least, bound, 64):
        for span, length in ((tile.rows, height), (tile.columns, width)):
            assert span.start == span.keep_start == 0 or span.keep_start - span.start >= reach
            assert span.stop == span.keep_stop == length or span.stop - span.keep_stop >= reach
            assert side(span) == length or side(span) >= 2 * reach + least


@settings(deadline=None)
@given(sides, sides, reaches, leasts, bounds)
def test_tiles_are_within_the_bound_or_as_small_as_the_reach_permits(height, width, reach, least, bound):
    tile = tiles(height, width, reach, least, bound, 64)[0]
    area = side(tile.rows) * side(tile.columns)
    smallest = [min(length, up(2 * up(reach) + least)) for length in (height, width)]
    assert area <= max(bound, smallest[0] * smallest[1])


@settings(deadline=None)
@given(sides, sides, reaches, leasts)
def test_an_image_within_the_bound_is_one_tile(height, width, reach, least):
    (tile,) = tiles(height, width, reach, least, height * width, 64)
    assert (side(tile.rows), side(tile.columns)) == (height, width)


def test_an_axis_is_left_whole_where_that_is_less_work():
    cut = tiles(4096, 256, 320, 192, 1024 * 256, 64)
    assert {(side(tile.rows), side(tile.columns)) for tile in cut} == {(1024, 256)} and len(cut) == 9


def test_the_last_tile_ends_with_the_image():
    last = tiles(4096, 4032, 304, 192, TILE_PIXELS, 64)[-1]
    assert (last.rows.stop, last.columns.stop) == (4096, 4032)
