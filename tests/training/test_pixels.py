"""Training of vision models on pixels: the losses against plain computations, and what may change."""

import pytest
import torch
from formula import formula_task
from torch.nn import functional as F
from vision_checks import MEAN, STD, digest, mask_for, one_step, picture, pixelwise, repeated, smoothed

from polc import preset
from polc_runtime import UsageError
from polc_training.stages.pixels import PixelStage, pad_image


@pytest.fixture
def classifier():
    return formula_task("convnext_mini", preset("polc-tiny"))


@pytest.fixture
def segmenter():
    return formula_task("pspnet_mini", preset("polc-tiny"))


def pspnet_logits(model, image, height, width):
    """Head and auxiliary logits of a normalised and padded image, cut to height x width."""
    x = model.layer2(model.layer1(model.layer0(repeated(image, image.shape[2] + 1, image.shape[3] + 1))))
    third = model.layer3(x)
    both = []
    for low in (model.cls(model.ppm(model.layer4(third))), model.aux(third)):
        size = tuple(8 * (side - 1) + 1 for side in low.shape[2:])
        stretched = F.interpolate(low, size, mode="bilinear", align_corners=True)
        both.append(stretched[:, :, :height, :width])
    return both


def test_a_classification_step_minimises_smoothed_cross_entropy_of_the_normalised_picture(classifier):
    stage = PixelStage(classifier)
    image, label = picture(4, 192, 192), torch.tensor([3, 0, 9, 3])
    logits = classifier.model((image - MEAN) / STD)
    losses = stage("model", (image, label))
    torch.testing.assert_close(losses["loss"], smoothed(logits, label))
    torch.testing.assert_close(losses["accuracy"], (logits.argmax(1) == label).float().mean())
    assert not losses["cross_entropy"].requires_grad and not losses["accuracy"].requires_grad


@pytest.mark.parametrize("size", [(192, 192), (200, 230)])
def test_a_segmentation_step_minimises_both_heads_over_the_pixels_with_a_label(segmenter, size):
    stage = PixelStage(segmenter)
    stage.eval()
    image = picture(2, *size)
    mask = mask_for(image)
    full = repeated(image, 192 if size[0] == 192 else 256, 192 if size[1] == 192 else 256)
    main, auxiliary = pspnet_logits(segmenter.model, (full - MEAN) / STD, *size)
    losses = stage("model", (image, mask))
    expected = pixelwise(main, mask) + 0.4 * pixelwise(auxiliary, mask)
    torch.testing.assert_close(losses["loss"], expected)
    torch.testing.assert_close(losses["cross_entropy"], pixelwise(main, mask))
    known = mask != 255
    torch.testing.assert_close(losses["accuracy"], (main.argmax(1)[known] == mask[known]).float().mean())
    torch.testing.assert_close(stage.predict(image), main)


def test_only_the_classifier_changes(classifier):
    stage = PixelStage(classifier)
    adapter, before = digest(classifier.adapter), digest(stage.learners())
    one_step(stage, (picture(4, 192, 192), torch.tensor([3, 0, 9, 3])))
    assert digest(classifier.adapter) == adapter and digest(stage.learners()) != before
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in classifier.model.parameters())
    assert all(p.grad is None for p in classifier.adapter.parameters())


def test_a_segmenter_learns_its_statistics_too_and_drops_channels(segmenter):
    stage = PixelStage(segmenter)
    running = segmenter.model.layer0[1].running_mean.clone()
    adapter = digest(segmenter.adapter)
    image = picture(2, 192, 192)
    batch = image, mask_for(image)
    one_step(stage, batch)
    assert digest(segmenter.adapter) == adapter
    assert not torch.equal(segmenter.model.layer0[1].running_mean, running)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in segmenter.model.parameters())
    with torch.no_grad():
        assert not torch.equal(stage("model", batch)["loss"], stage("model", batch)["loss"])


def test_training_mode_does_not_reach_the_adapter(classifier):
    stage = PixelStage(classifier)
    stage.eval()
    stage.train()
    assert classifier.model.training and not any(m.training for m in classifier.adapter.modules())
    assert not any(p.requires_grad for p in classifier.adapter.parameters())


def test_a_mask_without_any_label_gives_zero(segmenter):
    stage = PixelStage(segmenter)
    image = picture(2, 192, 192)
    losses = one_step(stage, (image, torch.full((2, 192, 192), 255)))
    assert losses["loss"] == 0 and losses["accuracy"] == 0
    assert all(p.grad.isfinite().all() for p in segmenter.model.parameters())


def test_weight_decay_is_adamws_on_weights_alone(classifier):
    stage = PixelStage(classifier, learning_rate=0.5, weight_decay=0.1)
    optimizer = stage.objectives["model"].make_optimizer()
    before = {name: p.detach().clone() for name, p in classifier.model.named_parameters()}
    for parameter in classifier.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in classifier.model.named_parameters():
        factor = 1 - 0.5 * 0.1 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    plain = PixelStage(classifier, weight_decay=None).objectives["model"].make_optimizer()
    assert type(plain) is torch.optim.Adam


@pytest.mark.parametrize(
    ("size", "padded"), [((192, 256), (192, 256)), ((100, 65), (192, 192)), ((193, 64), (256, 192))]
)
def test_images_are_padded_as_the_runtime_pads_them(size, padded):
    image = picture(2, *size)
    assert torch.equal(pad_image(image), repeated(image, *padded))


def test_a_segmenter_refuses_a_batch_of_one(segmenter):
    stage = PixelStage(segmenter)
    image = picture(1, 192, 192)
    with pytest.raises(UsageError, match="at least 2 images, got 1"):
        stage("model", (image, mask_for(image)))
    stage.eval()
    assert stage("model", (image, mask_for(image)))["loss"] > 0
