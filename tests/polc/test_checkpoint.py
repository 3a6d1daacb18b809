"""Checkpoints in both layouts: what loads, what is refused, and what the messages say."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from formula import formula_codec
from safetensors.torch import load_file, save_file

from polc import (
    CheckpointError,
    codec_id,
    fingerprint,
    load_checkpoint,
    preset,
    save_checkpoint,
    save_official,
)


@pytest.fixture(scope="module")
def codec():
    return formula_codec(preset("polc-tiny"))


@pytest.fixture
def official(codec, tmp_path):
    """A path and its tensors, to be changed and written back."""
    path = tmp_path / "official.pth.tar"
    save_official(path, codec)
    return path, torch.load(path, weights_only=True)["state_dict"]


def rewrite(official, change, wrap=lambda state: {"state_dict": state}):
    path, state = official
    change(state)
    torch.save(wrap(state), path)
    return path


def same_weights(a, b):
    states = [dict(model.named_parameters()) for model in (a, b)]
    same = {key: torch.equal(value, states[1][key]) for key, value in states[0].items()}
    return states[0].keys() == states[1].keys() and all(same.values())


def test_own_layout_keeps_weights_dimensions_and_metadata(codec, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", codec, {"stage": "stage1", "steps": 7})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert same_weights(loaded.codec, codec) and loaded.codec.config == codec.config
    assert loaded.metadata == {"stage": "stage1", "steps": 7}
    assert not loaded.codec.training


@pytest.mark.parametrize("name", ["polc-tiny", "polc-nano"])
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_official_layout_keeps_weights_and_tells_its_dimensions(name, suffix, tmp_path):
    codec = formula_codec(preset(name))
    path = tmp_path / f"a{suffix}"
    save_official(path, codec)
    loaded = load_checkpoint(path)
    assert same_weights(loaded.codec, codec)
    told = dataclasses.replace(loaded.codec.config, drop_path=codec.config.drop_path)
    assert told == codec.config, "all but the stochastic depth of training"


def test_full_size_model_writes_exactly_the_official_keys(golden, tmp_path):
    codec = formula_codec(preset("polc-base"))
    save_official(tmp_path / "a.safetensors", codec, load_checkpoint_tables(codec))
    official = json.loads((golden / "state_keys.json").read_text())["TinyLICVR"]
    written = {key: list(value.shape) for key, value in load_file(tmp_path / "a.safetensors").items()}
    constants = (".target", ".bound", ".scale_bound")
    expected = {k: v["shape"] for k, v in official.items() if not k.endswith(constants)}
    assert written.keys() == expected.keys()
    tables = ("_quantized_cdf",)
    assert all(written[k] == expected[k] for k in expected if not k.endswith(tables))


def load_checkpoint_tables(codec):
    from polc import Checkpoint

    return Checkpoint(codec).tables()[0]


def test_formula_weights_are_the_golden_ones(golden):
    from formula import formula_tensor

    checks = json.loads((golden / "weight_checks.json").read_text())["TinyLICVR"]
    keys = json.loads((golden / "state_keys.json").read_text())["TinyLICVR"]
    for key, check in checks.items():
        value = formula_tensor(key, keys[key]["shape"])
        if value is None:
            continue
        np.testing.assert_array_equal(value.ravel()[:3], np.float32(check["first"]))
        assert value.astype(np.float64).sum() == pytest.approx(check["sum"], rel=1e-9, abs=1e-9)


def test_parallel_prefix_bare_state_and_newer_prior_names_load(official, codec):
    def change(state):
        renames = {"_matrix": "matrices.", "_bias": "biases.", "_factor": "factors."}
        for key in list(state):
            new = key
            for old, name in renames.items():
                new = new.replace(f"entropy_bottleneck.{old}", f"entropy_bottleneck.{name}")
            state["module." + new] = state.pop(key)
        state["module.mask_token"] = torch.zeros(1)

    path = rewrite(official, change, wrap=lambda state: state)
    assert same_weights(load_checkpoint(path).codec, codec)


def test_empty_stored_tables_are_no_tables(official):
    def change(state):
        for name in ("_offset", "_quantized_cdf", "_cdf_length"):
            state[f"entropy_bottleneck.{name}"] = torch.zeros(0, dtype=torch.int32)

    assert load_checkpoint(rewrite(official, change)).stored_tables is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("g_a1.residual_group.blocks.0.attn.rpb"), "1 relative position biases are missing"),
        (lambda s: s.pop("h_s3.weight"), "missing weights: h_s3.weight"),
        (lambda s: s.update({"g_b.weight": torch.zeros(1)}), "unknown weights: g_b.weight"),
        (
            lambda s: s.update({"h_s1.weight": torch.zeros(16, 16, 5, 5)}),
            r"h_s1.weight .* \(16, 16, 5, 5\)",
        ),
        (
            lambda s: s.update({"h_s1.bias": torch.full((16,), torch.nan)}),
            "h_s1.bias holds values",
        ),
        (
            lambda s: s.update({"sc_transform_1.mask": torch.ones_like(s["sc_transform_1.mask"])}),
            "sc_transform_1.mask is not the mask",
        ),
        (lambda s: s.clear(), "not the weights of a known codec: the file holds no weights"),
    ],
)
def test_wrong_weights_are_named(official, change, said):
    path = rewrite(official, change)
    with pytest.raises(CheckpointError, match=said) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pickled_objects_are_refused_unrun(tmp_path, capsys):
    torch.save({"state_dict": Payload()}, tmp_path / "evil.pth.tar")
    with pytest.raises(CheckpointError, match="never"):
        load_checkpoint(tmp_path / "evil.pth.tar")
    assert "must never run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02"])
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_damaged_files_are_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="bad") as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(tmp_path / "none.pth.tar")


def test_own_layout_refuses_unknown_dimensions(tmp_path):
    document = {"config": {"dims": [16, 16, 16, 32], "colour": 3}}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"polc": json.dumps(document)})
    with pytest.raises(CheckpointError, match="unknown fields: colour"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_identity_follows_what_decoding_depends_on(codec, tmp_path):
    tables = load_checkpoint_tables(codec)
    before = fingerprint(codec, tables), codec_id(codec)
    other = formula_codec(preset("polc-tiny"))
    assert (fingerprint(other, tables), codec_id(other)) == before
    with torch.no_grad():
        other.g_s[0].conv.bias += 1
    assert fingerprint(other, tables) == before[0] and codec_id(other) != before[1]
    with torch.no_grad():
        other.h_s[0].conv.bias += 1
    assert fingerprint(other, tables) != before[0]


def test_identity_does_not_depend_on_the_layout(codec, tmp_path):
    save_official(tmp_path / "a.pth.tar", codec)
    save_checkpoint(tmp_path / "b.safetensors", codec)
    assert codec_id(load_checkpoint(tmp_path / "a.pth.tar").codec) == codec_id(
        load_checkpoint(tmp_path / "b.safetensors").codec
    )
