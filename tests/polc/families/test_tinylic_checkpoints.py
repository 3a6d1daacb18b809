"""TinyLIC checkpoints: POLC's network without level tables, at one rate."""

import json

import numpy as np
import pytest
import torch
from formula import formula_codec

from polc import CheckpointError, Codec, codec_id, fingerprint, load_checkpoint, preset, save_checkpoint
from polc.backends.torch import TorchBackend
from polc.families.tinylic.family import with_levels
from polc.families.tinylic.keymap import GAINS

TINY = preset("polc-tiny")
TABLES = (*GAINS.values(), ".gamma_1", ".gamma_2")


@pytest.fixture(scope="module")
def polc_with_ones():
    """A POLC codec whose every factor is 1."""
    codec = formula_codec(TINY)
    with torch.no_grad():
        for name, value in codec.named_parameters():
            if "gain" in name or "gamma" in name:
                value.fill_(1)
    return codec


@pytest.fixture
def state(polc_with_ones):
    """The same weights as TinyLIC's authors save them."""
    weights = polc_with_ones.official_weights() | polc_with_ones.official_constants()
    return {name: value.detach().contiguous() for name, value in weights.items() if not name.endswith(TABLES)}


def written(tmp_path, content):
    torch.save(content, tmp_path / "a.pth.tar")
    return tmp_path / "a.pth.tar"


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
def test_it_computes_what_polc_computes_with_factors_of_one(polc_with_ones, state, tmp_path, wrap):
    codec = load_checkpoint(written(tmp_path, wrap(state))).codec
    assert codec.config.levels == 0
    inputs = {
        "image": np.random.default_rng(0).random((1, 3, 192, 256), np.float32),
        "quality": np.array([3.5], np.float32),
        "z_hat": np.random.default_rng(1).standard_normal((1, 16, 3, 4), np.float32),
        "y_hat": np.random.default_rng(2).standard_normal((1, 32, 12, 16), np.float32),
    }
    ours, theirs = TorchBackend(codec), TorchBackend(polc_with_ones)
    for graph in ("analysis", "hyper_synthesis", "synthesis"):
        assert "quality" not in ours.graphs[graph].inputs
        found, expected = (backend.run(graph, inputs) for backend in (ours, theirs))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-6)


def test_its_plan_is_the_nine_steps_at_one_quality(polc_with_ones, state, tmp_path):
    codec = load_checkpoint(written(tmp_path, state)).codec
    assert codec.plan.fits_version_1 and codec.plan.quality.min == codec.plan.quality.max == 4
    assert codec.plan.steps == polc_with_ones.plan.steps and codec.plan.reach == polc_with_ones.plan.reach


def test_identity_covers_the_weights_it_has(polc_with_ones, state, tmp_path):
    codec = load_checkpoint(written(tmp_path, state)).codec
    tables = codec.tables()
    assert codec.official_weights().keys() == state.keys() - codec.official_constants().keys()
    assert fingerprint(codec, tables) != fingerprint(polc_with_ones, tables)
    before = codec_id(codec), fingerprint(codec, tables)
    with torch.no_grad():
        codec.h_s[0].conv.bias += 1
    assert codec_id(codec) != before[0] and fingerprint(codec, tables) != before[1]


def test_own_layout_keeps_it(state, tmp_path):
    codec = load_checkpoint(written(tmp_path, state)).codec
    save_checkpoint(tmp_path / "b.safetensors", codec)
    assert codec_id(load_checkpoint(tmp_path / "b.safetensors").codec) == codec_id(codec)


def test_a_polc_checkpoint_that_lost_a_table_is_not_taken_for_tinylic(polc_with_ones, tmp_path):
    weights = {name: value.detach() for name, value in polc_with_ones.official_weights().items()}
    del weights["Gain"]
    with pytest.raises(CheckpointError, match="missing weights: Gain"):
        load_checkpoint(written(tmp_path, weights))


def test_the_first_releases_context_model_is_refused_with_its_reason(tmp_path):
    old = {"g_a1.residual_group.blocks.0.attn.relative_position_bias_table": torch.zeros(225, 8)}
    old |= {f"context_prediction_{i}.weight": torch.zeros(2, 1, 5, 5) for i in (1, 2, 3)}
    with pytest.raises(CheckpointError, match=r"first release of TinyLIC.*context_prediction_1\.weight"):
        load_checkpoint(written(tmp_path, old))


def test_it_has_no_tasks_and_is_not_trained(state, tmp_path):
    codec = load_checkpoint(written(tmp_path, state)).codec
    with pytest.raises(CheckpointError, match="only POLC codecs can be trained"):
        with_levels(codec)
    save_checkpoint(tmp_path / "b.safetensors", codec)
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        document = json.loads(file.metadata()["polc"]) | {"tasks": {"a": "convnext_tiny"}}
    save_file(
        load_file(tmp_path / "b.safetensors"), tmp_path / "c.safetensors", {"polc": json.dumps(document)}
    )
    with pytest.raises(
        CheckpointError, match="no quality levels: tasks read the latents of POLC codecs alone"
    ):
        load_checkpoint(tmp_path / "c.safetensors")


@pytest.mark.parametrize("levels", [1, 9, -1])
def test_other_numbers_of_levels_are_refused(levels):
    with pytest.raises(CheckpointError, match="2 to 8 quality levels, or 0 for one rate"):
        type(TINY).from_dict(TINY.to_dict() | {"levels": levels})


def test_a_codec_without_levels_has_fewer_weights_by_its_tables():
    sizes = [
        sum(p.numel() for p in Codec(config).parameters())
        for config in (TINY, type(TINY).from_dict(TINY.to_dict() | {"levels": 0}))
    ]
    blocks = 2 * 8 * 2 * (sum(TINY.dims) + 2 * TINY.hyper_dim)
    assert sizes[0] - sizes[1] == blocks + 2 * 8 * (TINY.latent_channels + TINY.hyper_dim)
