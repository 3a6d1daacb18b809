"""Stage 2: the losses against plain computations from the codec's pieces; that the adapter alone learns."""

import dataclasses

import pytest
import torch
from formula import formula_codec, formula_task
from torch.nn import functional as F
from vision_checks import MEAN, STD, digest, mask_for, one_step, picture, pixelwise, repeated, smoothed

from polc import CheckpointError, preset
from polc_runtime import UsageError
from polc_training.stages.stage2 import AdapterStage

CONFIG = preset("polc-tiny")
LAMBDA = (18, 9.32, 4.83, 2.5, 1.3, 0.67, 0.35, 0.18)
LEVELS = torch.arange(1.0, 9)
LABEL = torch.tensor([3, 0, 9, 3, 1, 1, 7, 2])


@pytest.fixture(scope="module")
def codec():
    return formula_codec(CONFIG)


@pytest.fixture
def classification(codec):
    return AdapterStage(codec, formula_task("convnext_mini", CONFIG))


@pytest.fixture
def segmentation(codec):
    return AdapterStage(codec, formula_task("pspnet_mini", CONFIG))


def logit(prior, x):
    """Cumulative logits of the factorised prior (Ballé et al., 2018, appendix 6.1) for x [N',1,n]."""
    for matrix, bias, factor in zip(prior.matrices, prior.biases, [*prior.factors, None], strict=True):
        x = F.softplus(matrix) @ x + bias
        if factor is not None:
            x = x + factor.tanh() * x.tanh()
    return x


@torch.no_grad()
def coded(codec, image, quality):
    """The decoded latent and the estimated bits of each sample, with hard rounding everywhere."""
    y, z = codec.analyse(image, quality)
    median = codec.prior.quantiles[:, 0, 1][None, :, None, None]
    z_hat = (z - median).round() + median
    flat = z_hat.transpose(0, 1).flatten(1)[:, None]
    p = (logit(codec.prior, flat + 0.5).sigmoid() - logit(codec.prior, flat - 0.5).sigmoid()).clamp(min=1e-9)
    bits = -p.log2().squeeze(1).unflatten(1, (len(image), -1)).sum((0, 2))

    def code(step, scales, means):
        nonlocal bits
        channels = y[:, step.channels]
        if not step.all_positions:
            channels = torch.cat([channels[:, :, row::2, column::2] for row, column in step.positions], 1)
        symbols = (channels - means).round()
        normal = torch.distributions.Normal(0.0, scales.clamp(min=0.11).double())
        p = (normal.cdf(0.5 - symbols.abs()) - normal.cdf(-0.5 - symbols.abs())).clamp(min=1e-9)
        bits = bits - p.log2().flatten(1).sum(1)
        return symbols + means

    params = codec.hyper_synthesise(z_hat, quality)
    y_hat = codec.context(params, code, y)
    return y_hat, bits.float()


def in_a_row(stages, x):
    features = [x]
    for stage in stages:
        features.append(stage(features[-1]))
    return features


def mse_sum(features, teacher):
    return sum(((a - b) ** 2).mean() for a, b in zip(features, teacher, strict=True))


def classification_loss(stage, image, label, quality):
    codec, task = stage.codec, stage.task
    y_hat, bits = coded(codec, image, quality)
    lambdas = torch.tensor(LAMBDA)[quality.long() - 1]
    student = in_a_row(task.model.stages, task.adapter(y_hat, quality))
    teacher = in_a_row(task.model.stages, task.model.stem((image - MEAN) / STD))
    rate = (lambdas * bits / (192 * 192)).mean()
    return rate + smoothed(task.model.head(student[-1]), label) + 0.01 * mse_sum(student, teacher), rate


@pytest.mark.parametrize("quality", [LEVELS, torch.full((8,), 3.0)])
def test_a_classification_step_minimises_rate_cross_entropy_and_a_hundredth_of_the_features(
    classification, quality
):
    image = picture(8, 192, 192)
    losses = classification.losses(image, LABEL, quality)
    expected, rate = classification_loss(classification, image, LABEL, quality)
    assert rate > 1
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["bpp"], coded(classification.codec, image, quality)[1].mean() / 192**2)


def segmentation_loss(stage, image, mask, quality, padded):
    codec, model = stage.codec, stage.task.model
    full = repeated(image, *padded)
    y_hat, bits = coded(codec, full, quality)
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    student = in_a_row(layers, stage.task.adapter(y_hat, quality))
    pixels = repeated((full - MEAN) / STD, padded[0] + 1, padded[1] + 1)
    teacher = in_a_row(layers, model.layer0(pixels))
    height, width = mask.shape[1:]
    size = padded[0] + 1, padded[1] + 1
    entropies = []
    for low in (model.cls(model.ppm(student[4])), model.aux(student[3])):
        logits = F.interpolate(low, size, mode="bilinear", align_corners=True)
        entropies.append(pixelwise(logits[:, :, :height, :width], mask))
    rate = (torch.tensor(LAMBDA)[quality.long() - 1] * bits / (height * width)).mean()
    return rate + entropies[0] + 0.4 * entropies[1] + 10 * mse_sum(student, teacher)


@pytest.mark.parametrize(("size", "padded"), [((192, 192), (192, 192)), ((130, 200), (192, 256))])
def test_a_segmentation_step_minimises_rate_cross_entropies_and_ten_times_the_features(
    segmentation, size, padded
):
    image, quality = picture(2, *size), torch.tensor([2.0, 7.0])
    mask = mask_for(image)
    losses = segmentation.losses(image, mask, quality)
    torch.testing.assert_close(losses["loss"], segmentation_loss(segmentation, image, mask, quality, padded))
    assert set(losses) == {"loss", "cross_entropy", "auxiliary", "accuracy", "bpp", "feature_mse"}
    assert not any(value.requires_grad for name, value in losses.items() if name != "loss")


def batch_for(stage):
    image = picture(8 if stage.task.family.kind == "classification" else 2, 192, 192)
    return image, LABEL if stage.task.family.kind == "classification" else mask_for(image)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_only_the_adapter_changes_no_statistics_and_no_frozen_gradient(kind, request):
    stage = request.getfixturevalue(kind)
    stage.train()
    frozen = [digest(stage.codec), digest(stage.task.model)]
    before = digest(stage.task.adapter)
    one_step(stage, batch_for(stage))
    assert [digest(stage.codec), digest(stage.task.model)] == frozen
    assert digest(stage.learners()) == digest(stage.task.adapter) != before
    rest = (*stage.codec.parameters(), *stage.task.model.parameters())
    assert all(p.grad is None and not p.requires_grad for p in rest)


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_gradients_reach_every_weight_of_the_adapter_and_every_level_that_was_drawn(kind, request):
    stage = request.getfixturevalue(kind)
    image, target = batch_for(stage)
    quality = LEVELS if kind == "classification" else torch.tensor([2.0, 7.0])
    stage.losses(image, target, quality)["loss"].backward()
    learned = dict(stage.task.adapter.named_parameters())
    assert {id(p) for p in stage.objectives["adapter"].parameters()} == {id(p) for p in learned.values()}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learned.values())
    drawn = torch.zeros(8, dtype=torch.bool)
    drawn[quality.long() - 1] = True
    for name in ("block.gamma_1", "block.gamma_2"):
        assert torch.equal(learned[name].grad.abs().sum(1) > 0, drawn)


def test_training_mode_reaches_the_adapter_alone(classification):
    classification.eval()
    classification.train()
    task = classification.task
    assert task.adapter.training and all(p.requires_grad for p in task.adapter.parameters())
    assert not any(m.training for part in (classification.codec, task.model) for m in part.modules())


def test_an_adapter_that_training_on_pixels_froze_learns_again(codec):
    from polc_training.stages.pixels import PixelStage

    task = formula_task("convnext_mini", CONFIG)
    PixelStage(task)
    stage = AdapterStage(codec, task)
    one_step(stage, (picture(2, 192, 192), LABEL[:2]))
    assert all(p.grad is not None for p in task.adapter.parameters())
    assert not any(p.requires_grad for p in task.model.parameters())


def test_the_rate_has_no_gradient(codec):
    grads = []
    for lambdas in (LAMBDA, (0.0,) * 8):
        stage = AdapterStage(codec, formula_task("convnext_mini", CONFIG), lambdas=lambdas)
        losses = stage.losses(picture(2, 192, 192), LABEL[:2], torch.tensor([1.0, 8.0]))
        losses["loss"].backward()
        grads.append([p.grad for p in stage.task.adapter.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_the_synthesis_never_runs(classification, monkeypatch):
    monkeypatch.setattr(classification.codec, "synthesise", None)
    assert classification("adapter", (picture(1, 192, 192), LABEL[:1]))["loss"].isfinite()


def test_one_level_is_drawn_a_step_or_the_levels_are_spread_over_the_batch(codec):
    task = formula_task("convnext_mini", CONFIG)
    image = torch.zeros(8, 3, 1, 1)
    official = AdapterStage(codec, task)
    drawn = torch.stack([official.draw(image) for _ in range(100)])
    assert (drawn == drawn[:, :1]).all() and set(drawn[:, 0].tolist()) == set(LEVELS.tolist())
    spread = AdapterStage(codec, task, stratified=True)
    assert all(torch.equal(spread.draw(image).sort().values, LEVELS) for _ in range(20))
    batch = picture(2, 192, 192), LABEL[:2]
    torch.manual_seed(5)
    drawn = spread.draw(batch[0])
    torch.manual_seed(5)
    torch.testing.assert_close(spread("adapter", batch)["loss"], spread.losses(*batch, drawn)["loss"])


def test_what_does_not_fit_is_refused(codec):
    task = formula_task("convnext_mini", CONFIG)
    with pytest.raises(UsageError, match="expected a lambda for each of 8 levels, got 3"):
        AdapterStage(codec, task, lambdas=(3.0, 2.0, 1.0))
    other = formula_task("convnext_mini", dataclasses.replace(CONFIG, dims=(16, 16, 16, 40)))
    with pytest.raises(CheckpointError, match="reads 40 latent channels"):
        AdapterStage(codec, other)
