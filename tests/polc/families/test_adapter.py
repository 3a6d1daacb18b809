"""The latent adapter: its parts, its shapes and its names in the official layout."""

import json

import pytest
import torch
from torch.nn import functional as F

from polc import FAMILIES, LatentAdapter, preset
from polc.families.tinylic.keymap import from_official, official_key, to_official


@pytest.fixture(scope="module")
def adapter():
    torch.manual_seed(0)
    return LatentAdapter(32, channels=64, factor=4, head_dim=32, padding=1).eval()


def test_output_lies_on_a_grid_as_fine_as_the_factor_says(adapter):
    y_hat, quality = torch.randn(2, 32, 5, 7), torch.tensor([1.0, 8.0])
    assert adapter(y_hat, quality).shape == (2, 64, 21, 29)


def test_it_is_a_convolution_a_shuffle_a_repeated_border_and_one_block_without_outer_shortcut(adapter):
    y_hat, quality = torch.randn(1, 32, 3, 4), torch.tensor([2.5])
    x = F.pixel_shuffle(F.conv2d(y_hat, adapter.expand.weight, adapter.expand.bias), 4)
    x = torch.cat([x, x[:, :, -1:]], 2)
    x = torch.cat([x, x[..., -1:]], 3)
    expected = adapter.block(x.permute(0, 2, 3, 1), quality).permute(0, 3, 1, 2)
    torch.testing.assert_close(adapter(y_hat, quality), expected)


def test_a_batch_may_mix_qualities(adapter):
    adapter.block.gamma_1.data = torch.rand_like(adapter.block.gamma_1)
    y_hat, quality = torch.randn(2, 32, 4, 4), torch.tensor([1.25, 6.0])
    together = adapter(y_hat, quality)
    for index in range(2):
        one = slice(index, index + 1)
        torch.testing.assert_close(together[one], adapter(y_hat[one], quality[one]))
    assert not torch.allclose(adapter(y_hat[:1], quality[:1]), adapter(y_hat[:1], quality[1:]))


@pytest.mark.parametrize(
    ("wrapper", "family"),
    [
        ("ClsWrapper_convnext_tiny", "convnext_tiny"),
        ("ClsWrapper_deit_small", "deit_small"),
        ("SegWrapper_pspnet50", "pspnet50"),
    ],
)
def test_names_and_shapes_are_the_official_ones(golden, wrapper, family):
    official = json.loads((golden / "state_keys.json").read_text())[wrapper]
    expected = {k: v["shape"] for k, v in official.items() if k.startswith("adapter.")}
    entry = FAMILIES[family]
    channels = preset("polc-base").latent_channels
    module = LatentAdapter(channels, entry.channels, entry.factor, entry.head_dim, 8, entry.padding)
    state = to_official({f"adapter.{k}": v for k, v in module.state_dict().items()})
    assert {k: list(v.shape) for k, v in state.items()} == expected


def test_the_key_map_is_undone_by_its_inverse(adapter):
    ours = {f"adapter.{k}": v for k, v in adapter.state_dict().items()}
    back = from_official(to_official(ours), ours)
    assert back.keys() == ours.keys() and all(torch.equal(back[k], v) for k, v in ours.items())


def test_a_vision_models_own_names_are_left_as_they_are():
    for name in ("layers.1.downsample.norm.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.q.weight"):
        assert official_key(f"model.{name}") == f"task_model.{name}"
    state = {"model.blocks.0.attn.q.weight": torch.zeros(3, 2)}
    assert to_official(state).keys() == {"task_model.blocks.0.attn.q.weight"}
    assert from_official(to_official(state), state)["model.blocks.0.attn.q.weight"].shape == (3, 2)
