"""Large images: what networks give in tiles is what they give at once, and memory stays bounded."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Bundle, Codec
from polc_runtime.backends import BackendOptions
from polc_runtime.bitstream.plan import VERSION_1_PAD
from polc_runtime.bundle.plan import nine_step_plan
from polc_runtime.pictures.images import pad

TILE = 512 * 512
"""With the reach of polc-tiny, 112 pixels, the least tile has 448x448."""
ROUNDING = 1e-5
"""In units of the latents' standard deviation: products that are summed up in another order."""
ODD_SIZES = ((1030, 700), (513, 769), (191, 1500))


def picture(height, width, seed=0):
    """A smooth picture with noise on it, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def open_codec(bundle, tile_pixels, **changes):
    """A codec that cuts images above a size, on a bundle whose manifest has changes."""
    opened = Bundle.load(bundle)
    opened = dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, **changes))
    return Codec(opened, options=BackendOptions(threads=1), tile_pixels=tile_pixels)


@pytest.fixture(scope="module")
def whole(tiny_bundle):
    with open_codec(tiny_bundle, 2**40) as codec:
        yield codec


@pytest.fixture(scope="module")
def tiled(tiny_bundle):
    with open_codec(tiny_bundle, TILE) as codec:
        yield codec


def without_hyper_analysis(bundle):
    """The graphs of a bundle of format 1.1."""
    return tuple(graph for graph in Bundle.load(bundle).manifest.graphs if graph.name != "hyper_analysis")


def count_runs(codec, monkeypatch):
    """Counts from now on how often each graph runs."""
    counts = {}
    run = codec.backend.run

    def counted(graph, inputs):
        counts[graph] = counts.get(graph, 0) + 1
        return run(graph, inputs)

    monkeypatch.setattr(codec.backend, "run", counted)
    return counts


def assert_same_latents(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and one.dtype == np.float32
        assert np.abs(one - other).max() <= ROUNDING * other.std()


def assert_same_pixels(found, expected):
    """But for values that lie on the boundary between two levels."""
    difference = np.abs(found.astype(int) - expected)
    assert found.shape == expected.shape and difference.max() <= 1 and difference.mean() < 1e-4


@pytest.mark.parametrize("size", ODD_SIZES)
def test_latents_of_tiles_are_those_of_the_whole_image(whole, tiled, monkeypatch, size):
    pixels = pad(picture(*size), VERSION_1_PAD)
    expected = whole.networks.analyse(pixels, 4.5)
    counts = count_runs(tiled, monkeypatch)
    assert_same_latents(tiled.networks.analyse(pixels, 4.5), expected)
    assert counts["analysis"] > 1 and counts["hyper_analysis"] == 1


def test_a_bundle_without_hyper_analysis_is_cut_in_tiles_that_overlap_by_more(
    tiny_bundle, whole, monkeypatch
):
    pixels = pad(picture(1000, 900), VERSION_1_PAD)
    with open_codec(tiny_bundle, 2 * TILE, graphs=without_hyper_analysis(tiny_bundle)) as codec:
        counts = count_runs(codec, monkeypatch)
        found = codec.networks.analyse(pixels, 2)
    assert_same_latents(found, whole.networks.analyse(pixels, 2))
    assert counts.keys() == {"analysis"} and counts["analysis"] > 1


def test_tiles_that_overlap_by_less_than_the_reach_give_something_else(tiny_bundle, whole):
    """So that the tests of equality can fail."""
    pixels = pad(picture(1000, 900), VERSION_1_PAD)
    plan = Bundle.load(tiny_bundle).manifest.plan
    plan = dataclasses.replace(plan, reach=dataclasses.replace(plan.reach, y=16))
    with open_codec(tiny_bundle, TILE, plan=plan) as codec:
        found = codec.networks.analyse(pixels, 4)
    with pytest.raises(AssertionError):
        assert_same_latents(found, whole.networks.analyse(pixels, 4))


@pytest.mark.parametrize("size", ODD_SIZES)
def test_an_image_drawn_in_tiles_is_the_whole_one(whole, tiled, size):
    data = whole.compress(picture(*size), 3)
    assert_same_pixels(tiled.decompress(data), whole.decompress(data))


@pytest.mark.parametrize("size", ODD_SIZES)
def test_files_decode_to_what_the_encoder_has_whichever_way_each_of_them_cuts(whole, tiled, size):
    pixels = picture(*size)
    data = tiled.compress(pixels, 6.25)
    np.testing.assert_array_equal(whole.latent(data), tiled.latent(data))
    expected = tiled.reconstruct(pixels, 6.25)[0, :, : size[0], : size[1]].transpose(1, 2, 0)
    np.testing.assert_array_equal(
        tiled.decompress(data), np.rint(expected * np.float32(255)).astype(np.uint8)
    )
    assert_same_pixels(whole.decompress(data), tiled.decompress(data))


def test_an_image_within_the_bound_runs_whole_and_needs_no_reach(tiny_bundle, monkeypatch):
    pixels = picture(512, 512)
    with open_codec(tiny_bundle, TILE, plan=nine_step_plan({"dims": [32], "hyper_dim": 16}, (1, 8))) as codec:
        counts = count_runs(codec, monkeypatch)
        codec.decompress(codec.compress(pixels))
        assert counts["analysis"] == counts["synthesis"] == 1 and "hyper_analysis" not in counts
        codec.compress(picture(512, 513))
        assert counts["analysis"] == 2, "without a reach a large image runs whole too"


CHILD = """
import sys
from pathlib import Path
import numpy as np
from polc_runtime import Bundle, Codec
from polc_runtime.backends import BackendOptions

bundle, height, width, tile_pixels = sys.argv[1], *map(int, sys.argv[2:])
rows, columns = np.mgrid[:height, :width]
pixels = np.stack([rows // 8, columns // 8, (rows + columns) // 16], -1).astype(np.uint8)
with Codec(Bundle.load(bundle), options=BackendOptions(threads=2), tile_pixels=tile_pixels) as codec:
    assert codec.decompress(codec.compress(pixels)).shape == pixels.shape
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) * 1024)
"""


def peak_bytes(bundle, height, width, tile_pixels):
    """Largest resident memory of a process that compresses and decompresses an image."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the peak is read from /proc")
    command = [sys.executable, "-c", CHILD, *map(str, (bundle, height, width, tile_pixels))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=True)
    return int(done.stdout)


def test_memory_grows_with_the_image_far_slower_in_tiles_than_at_once(tiny_bundle):
    small, large = 768, 1536
    in_tiles, at_once = (
        peak_bytes(tiny_bundle, large, large, bound) - peak_bytes(tiny_bundle, small, small, bound)
        for bound in (TILE, 2**40)
    )
    assert in_tiles < at_once / 2


@pytest.mark.slow
def test_an_image_of_4096x4096_takes_less_than_8_gb():
    from polc_runtime.codec.tiles import TILE_PIXELS

    assert peak_bytes("nano", 4096, 4096, TILE_PIXELS) < 8e9
