"""Multiply-accumulates of graphs, against arithmetic on paper."""

from dataclasses import replace
from pathlib import Path

import pytest
from compressai_models import random_model

from polc import Codec, load_checkpoint, preset
from polc.families.compressai.architectures import CompressAiConfig
from polc.families.compressai.codec import CompressAiCodec
from polc.macs import macs_per_pixel
from polc_runtime import Bundle

REPOSITORY = Path(__file__).resolve().parents[2]

SPATIAL = {1: 3, 2: 5, 3: 5, 5: 5, 7: 5}
"""Kernel of the spatial context of the steps that have one."""


def blocks(config, dim, depth, kernel, side):
    """Blocks at one position of a map of `side` x `side`: projections, MLP, and two products of attention."""
    hidden = int(dim * config.mlp_ratio)
    return depth * (dim * (4 * dim + 2 * hidden) + 2 * min(kernel, side) ** 2 * dim)


def transform(config, stages, side):
    """Multiply-accumulates of (inputs, outputs, kernel, depth, attention) going down from a map of a side."""
    total = 0
    for inputs, outputs, kernel, depth, attention in stages:
        side //= 2
        total += side**2 * (kernel**2 * inputs * outputs + blocks(config, outputs, depth, attention, side))
    return total


def expected(config):
    """By name of the graph, for an image of 192x192."""
    widths, depths = (3, *config.dims), config.depths
    k, hyper_k, n, m = config.kernel_size, config.hyper_kernel_size, config.hyper_dim, config.dims[-1]
    down = list(zip(widths[:-1], widths[1:], (5, 3, 3, 3), depths, [k] * 4, strict=True))
    analysis = transform(config, down, 192)
    hyper = transform(
        config, [(m, n, 3, config.hyper_depths[0], hyper_k), (n, n, 3, config.hyper_depths[1], hyper_k)], 12
    )
    # Going up, blocks come first, and a transposed convolution works at each position of its input.
    up = [(n, n, config.hyper_depths[1], 3), (n, 2 * m, config.hyper_depths[0], 6)]
    hyper_up = sum(
        side**2 * (9 * i * o + blocks(config, i, depth, hyper_k, side)) for i, o, depth, side in up
    )
    found = {
        "hyper_analysis": hyper,
        "analysis": analysis + hyper,
        "hyper_synthesis": hyper_up,
        "synthesis": analysis,
    }
    start = 0
    for group, size in enumerate(config.groups):
        width = config.context_width or size
        channel = 144 * (25 * (2 * m + start) * width + 25 * width**2 + 9 * width * 2 * size)
        last = group == 3
        outputs = 2 * size
        official = (outputs, outputs) if last else (outputs * 10 // 6, outputs * 8 // 6)
        first, second = (config.entropy_width,) * 2 if config.entropy_width else official
        entropy = (2 * m + (2 if last else 4) * size) * first + first * second + second * outputs
        start += size
        for order, step in enumerate([(0, 1, 2, 3), (4, 5), (6, 7), (8,)][group]):
            count = {0: 36, 1: 72, 2: 72, 3: 144}[group]
            spatial = SPATIAL.get(step, 0) ** 2 * size * 2 * size
            found[f"context_{step}"] = count * (entropy + spatial) + (channel if order == 0 else 0)
    return {name: value / 192**2 for name, value in found.items()}


@pytest.mark.parametrize("name", ["polc-tiny", "polc-nano", "polc-base"])
def test_they_are_what_the_dimensions_give(name):
    codec = Codec(preset(name))
    assert macs_per_pixel(codec.graphs(), codec.plan.pad) == pytest.approx(expected(preset(name)), abs=6e-4)


def test_the_packaged_bundle_states_those_of_its_checkpoint():
    plan = Bundle.load("nano").manifest.plan
    codec = load_checkpoint(REPOSITORY / "models/polc-nano/polc-nano.safetensors").codec
    assert plan == replace(codec.plan, macs=macs_per_pixel(codec.graphs(), codec.plan.pad))


def test_of_compressais_networks_the_normalisation_counts_as_the_convolution_that_it_is():
    n, m = 128, 192
    codec = CompressAiCodec(CompressAiConfig("mbt2018-mean", n, m))
    found = macs_per_pixel(codec.graphs(), codec.plan.pad)
    g_a = (25 * 3 * n + n * n) / 4 + (25 * n * n + n * n) / 16 + (25 * n * n + n * n) / 64 + 25 * n * m / 256
    assert found["synthesis"] == pytest.approx(
        25 * m * n / 256 + (25 * n * n + n * n) / 64 + (25 * n * n + n * n) / 16 + (25 * 3 * n + n * n) / 4
    )
    h_a = 9 * m * n / 256 + 25 * n * n / 1024 + 25 * n * n / 4096
    assert found["hyper_analysis"] == pytest.approx(h_a, abs=6e-4)
    assert found["analysis"] == pytest.approx(g_a + h_a)
    h_s = 25 * n * m / 4096 + 25 * m * (m * 3 // 2) / 1024 + 9 * (m * 3 // 2) * 2 * m / 256
    assert found["hyper_synthesis"] == pytest.approx(h_s, abs=6e-4)


def test_counting_leaves_the_model_as_it_was():
    model = random_model("mbt2018-mean", 8, 12)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    codec = CompressAiCodec(CompressAiConfig("mbt2018-mean", 8, 12))
    codec.network = model
    macs_per_pixel(codec.graphs(), codec.plan.pad)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
