"""The closed-form start of an adapter: close to the teacher at once, at every level, and open to training."""

import pytest
import torch
from formula import formula_codec, formula_task
from torch.nn import functional as F
from vision_checks import digest, picture

from polc import preset
from polc_runtime import UsageError
from polc_training.initialise_adapter import initialise_adapter
from polc_training.stages.stage2 import AdapterStage

CONFIG = preset("polc-tiny")
FAMILIES = ("convnext_mini", "pspnet_mini", "tiny_swin", "tiny_deit")


def smooth(batch, seed):
    """Pictures without detail, which a few channels of latents can hold."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 5, 5, generator=generator)
    return F.interpolate(coarse, (192, 192), mode="bicubic", align_corners=True).clamp(0, 1)


@pytest.fixture(scope="module")
def codec():
    return formula_codec(CONFIG)


@pytest.fixture
def stage(request, codec, tiny_families):
    return AdapterStage(codec, formula_task(request.param, CONFIG))


@torch.no_grad()
def distances(stage, image, quality):
    """Relative squared error of the adapter's output, of each sample."""
    y_hat, _ = stage.encode(image, quality)
    wanted = stage.teach(image)[0]
    found = stage.task.features(y_hat, quality)[0]
    return (found - wanted).square().flatten(1).mean(1) / wanted.var()


@pytest.mark.parametrize("stage", FAMILIES, indirect=True)
def test_it_brings_the_adapter_near_the_stem_on_pictures_it_has_not_seen(stage):
    image, quality = smooth(8, 2), torch.arange(1.0, 9)
    before = distances(stage, image, quality)
    told = initialise_adapter(stage, smooth(16, 1))
    after = distances(stage, image, quality)
    assert after.mean() < 0.5 * before.mean()
    assert told == pytest.approx(float(after.mean()), rel=0.5)


@pytest.mark.parametrize("stage", ["convnext_mini"], indirect=True)
def test_it_changes_the_adapter_alone_and_always_alike(stage):
    frozen = digest(stage.codec), digest(stage.task.model)
    initialise_adapter(stage, smooth(8, 1))
    first = digest(stage.task.adapter)
    assert (digest(stage.codec), digest(stage.task.model)) == frozen
    initialise_adapter(stage, smooth(8, 1))
    assert digest(stage.task.adapter) == first


@pytest.mark.parametrize("stage", ["convnext_mini"], indirect=True)
def test_its_mlp_is_the_identity_and_its_attention_silent(stage):
    initialise_adapter(stage, smooth(8, 1))
    block = stage.task.adapter.block
    x = torch.randn(2, 3, 4, 32)
    torch.testing.assert_close(block.mlp(x), x)
    big = torch.randn(1, 8, 8, 32)
    assert torch.count_nonzero(block.attn(big)) == 0
    assert (block.gamma_2 > 0).all()


@pytest.mark.parametrize("stage", ["convnext_mini"], indirect=True)
def test_training_goes_on_from_it(stage):
    initialise_adapter(stage, smooth(8, 1))
    assert all(p.requires_grad for p in stage.task.adapter.parameters())
    optimizer = stage.objectives["adapter"].make_optimizer()
    before = {name: p.detach().clone() for name, p in stage.task.adapter.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        losses = stage.losses(smooth(8, 3), torch.arange(8), torch.arange(1.0, 9))
        losses["loss"].backward()
        optimizer.step()
    assert losses["loss"].isfinite()
    assert all(not torch.equal(p, before[name]) for name, p in stage.task.adapter.named_parameters())


@pytest.mark.parametrize("stage", ["convnext_mini"], indirect=True)
def test_every_level_needs_a_picture(stage):
    with pytest.raises(UsageError, match="expected 8 images at least to fit an adapter to, got 7"):
        initialise_adapter(stage, picture(7, 192, 192))
