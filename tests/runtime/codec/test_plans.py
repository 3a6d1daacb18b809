"""Codecs whose coding plans need bitstream version 2, on the tiny bundles of tests/format/plans."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Bundle, Codec, UsageError
from polc_runtime.backends import BackendOptions
from polc_runtime.backends.wrapper import BackendWrapper
from polc_runtime.bitstream.container import Container
from polc_runtime.pictures.images import from_tensor, pad

PLANS = Path(__file__).parents[2] / "format" / "plans"
QUALITIES = {"mean-scale": (3.0,), "checkerboard": (1.0, 5.75, 12.0), "factorised": (0.5, 1.0, 4.0)}
SIZES = ((1, 1), (1, 300), (127, 129), (256, 128))
CASES = [(name, quality, size) for name, found in QUALITIES.items() for quality in found for size in SIZES]
TILE = 256 * 256


def picture(height, width):
    small = np.random.default_rng(1).integers(0, 256, (7, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def codecs():
    found = {name: Codec.load(PLANS / name, threads=1) for name in QUALITIES}
    yield found
    for codec in found.values():
        codec.close()


@pytest.mark.parametrize("portable", [True, False])
@pytest.mark.parametrize(("name", "quality", "size"), CASES)
def test_files_of_version_2_come_back_as_reconstructed(codecs, name, quality, size, portable):
    codec, pixels = codecs[name], picture(*size)
    data = codec.compress(pixels, quality, portable)
    container = Container.unpack(data)
    assert container.version == 2
    assert (container.z is None) == (name == "factorised")
    assert (container.calibration is None) == (name == "factorised" or not portable)
    expected = from_tensor(codec.reconstruct(pixels, quality), *size)
    np.testing.assert_array_equal(codec.decompress(data), expected)


@pytest.mark.parametrize(("name", "quality", "size"), CASES)
def test_the_decoder_has_the_encoders_latent(codecs, name, quality, size):
    codec, pixels = codecs[name], picture(*size)
    y, z = codec.networks.analyse(pad(pixels, codec.plan.pad), quality)
    coded = codec.latent_coder.encode(y, z, quality)
    np.testing.assert_array_equal(codec.latent(codec.compress(pixels, quality)), coded.y_hat)
    np.testing.assert_array_equal(codec.latent_coder.quantised(y, z, quality), coded.y_hat)
    assert np.abs(coded.y_hat - y).max() <= 0.5 + 1e-4, (
        "each symbol is the nearest whole number to y less its mean"
    )


@pytest.mark.parametrize(("name", "default"), [("mean-scale", 3), ("checkerboard", 6), ("factorised", 1)])
def test_the_plans_default_quality_is_taken(codecs, name, default):
    assert codecs[name].header(codecs[name].compress(picture(9, 9))).quality == default


@pytest.mark.parametrize(
    ("name", "quality", "message"),
    [
        ("mean-scale", 3.01, "must be 3, the only one here, got 3.01"),
        ("checkerboard", 12.5, "between 1 and 12, got 12.5"),
        ("factorised", 0.49, "between 0.5 and 4, got 0.49"),
    ],
)
def test_qualities_outside_of_the_plan_are_refused(codecs, name, quality, message):
    with pytest.raises(UsageError, match=message):
        codecs[name].compress(picture(9, 9), quality)


class Counting(BackendWrapper):
    """Counts how often each graph runs."""

    def __init__(self, backend):
        super().__init__(backend)
        self.counts = {}

    def run(self, graph, inputs):
        """See `Backend.run`."""
        self.counts[graph] = self.counts.get(graph, 0) + 1
        return super().run(graph, inputs)


def tiled(codec):
    """The codec on a backend that counts, cutting larger images than `TILE`."""
    return Codec(Bundle.load(codec.bundle.path), Counting(codec.backend), BackendOptions(), tile_pixels=TILE)


@pytest.mark.parametrize("name", ["mean-scale", "checkerboard"])
def test_tiles_give_what_whole_images_give(codecs, name):
    whole, cut = codecs[name], tiled(codecs[name])
    quality, pixels = whole.plan.quality.default, picture(900, 700)
    padded = pad(pixels, whole.plan.pad)
    for expected, found in zip(
        whole.networks.analyse(padded, quality), cut.networks.analyse(padded, quality), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    data = whole.compress(pixels, quality)
    decoded = whole.decode(data)
    np.testing.assert_allclose(
        cut.networks.synthesise(decoded.y_hat, quality),
        whole.networks.synthesise(decoded.y_hat, quality),
        atol=1e-6,
    )
    assert np.abs(np.subtract(cut.decompress(data), whole.decompress(data), dtype=int)).max() <= 1
    counts = cut.backend.counts
    assert counts["analysis"] > 1 and counts["synthesis"] > 2
    assert all(counts[graph] == steps_with(whole.plan, graph) for graph in whole.plan.exact_graphs)


def steps_with(plan, graph):
    """How often a file's decoding runs a graph of the entropy path."""
    return 1 if graph == plan.hyper.graph else [step.graph for step in plan.steps].count(graph)


def test_a_plan_without_a_reach_is_never_cut(codecs):
    cut = tiled(codecs["factorised"])
    cut.decompress(cut.compress(picture(900, 700)))
    assert cut.backend.counts == {"analysis": 1, "synthesis": 1}
