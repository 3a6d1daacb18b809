from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polc_runtime.bitstream.schedule import ALL_POSITIONS, gather, group_sizes, nine_steps, scatter


def test_the_preset_of_the_paper_has_its_groups() -> None:
    assert group_sizes(320) == (24, 69, 104, 123)


@pytest.mark.parametrize("channels", [4, 5, 8, 13, 14, 16, 32, 48, 128, 192, 321])
def test_every_group_has_channels_and_they_add_up(channels: int) -> None:
    sizes = group_sizes(channels)
    assert min(sizes) >= 1
    assert sum(sizes) == channels


@pytest.mark.parametrize("channels", [-1, 0, 3])
def test_too_few_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"at least 4 channels, got channels={channels}"):
        group_sizes(channels)


def test_steps_are_those_of_the_method() -> None:
    steps = nine_steps(320)
    assert [s.index for s in steps] == list(range(9))
    assert [s.channels.start for s in steps] == [0, 0, 0, 0, 24, 24, 93, 93, 197]
    assert [s.graph for s in steps] == [f"context_{i}" for i in range(9)]
    assert steps[3].positions == ((1, 0),)
    assert steps[4].positions == ((0, 1), (1, 0))
    assert steps[6].positions == ((0, 0), (1, 1))
    assert steps[8].positions == ALL_POSITIONS and steps[8].all_positions
    assert [(s.channels.start, s.channels.stop) for s in steps[3::1][:2]] == [(0, 24), (24, 93)]


def test_shapes_of_the_three_kinds_of_steps() -> None:
    steps = nine_steps(320)
    assert steps[0].shape(12, 16) == (24, 6, 8)
    assert steps[5].shape(12, 16) == (138, 6, 8)
    assert steps[8].shape(12, 16) == (123, 12, 16)


def test_two_positions_come_one_after_the_other_with_all_channels() -> None:
    latent = np.arange(16 * 4 * 6).reshape(16, 4, 6)
    step = nine_steps(16)[4]
    part = latent[step.channels]
    expected = [part[c, y, x] for p in ((0, 1), (1, 0)) for c in range(len(part))
                for y in range(p[0], 4, 2) for x in range(p[1], 6, 2)]  # fmt: skip
    assert gather(latent, step).ravel().tolist() == expected


@pytest.mark.parametrize("channels", [8, 14, 48])
def test_scatter_undoes_gather_and_the_steps_cover_the_latent_once(channels: int) -> None:
    latent = np.random.default_rng(0).normal(size=(channels, 6, 10)).astype(np.float32)
    out = np.full_like(latent, np.nan)
    for step in nine_steps(channels):
        values = gather(latent, step)
        assert values.shape == step.shape(6, 10)
        assert values.flags.c_contiguous and not np.shares_memory(values, latent)
        before = np.isnan(out).sum()
        scatter(out, step, values)
        assert before - np.isnan(out).sum() == values.size
    np.testing.assert_array_equal(out, latent)


@pytest.mark.parametrize("shape", [(16, 5, 4), (16, 4, 5), (16, 0, 4)])
def test_odd_sizes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be even"):
        gather(np.zeros(shape), nine_steps(16)[0])
    with pytest.raises(ValueError, match="must be even"):
        nine_steps(16)[0].shape(*shape[1:])


def test_wrong_shapes_are_refused() -> None:
    step = nine_steps(16)[8]
    with pytest.raises(ValueError, match="expected a latent"):
        gather(np.zeros((1, 16, 4, 4)), step)
    with pytest.raises(ValueError, match="the latent has 8"):
        gather(np.zeros((8, 4, 4)), step)
    with pytest.raises(ValueError, match=r"takes values of shape \(7, 4, 4\), got \(1, 4, 4\)"):
        scatter(np.zeros((16, 4, 4)), step, np.zeros((1, 4, 4)))


@pytest.mark.parametrize("name", ["codec_kodim05_q3", "codec_kodim05b_q8"])
def test_step_sizes_and_order_are_the_golden_ones(golden: Path, name: str) -> None:
    vectors = np.load(golden / f"{name}.npz")
    h, w = vectors["y_hat"].shape[2:]
    steps = nine_steps(320)
    assert [int(np.prod(s.shape(h, w))) for s in steps] == vectors["step_sizes"].tolist()
    # y_hat = symbol + mean and the symbols are round(y - mean): so they differ by at most a half and
    # y_hat - symbol is the mean. A wrong order leaves differences of several units.
    difference = np.concatenate([gather(vectors["y"][0] - vectors["y_hat"][0], s).ravel() for s in steps])
    assert np.abs(difference).max() <= 0.5 + 1e-3
    y = np.concatenate([gather(vectors["y"][0], s).ravel() for s in steps])
    assert np.corrcoef(y, vectors["symbols"])[0, 1] > 0.5
