"""Stage 1 with an adversary: both losses against a plain computation, and who learns when."""

import hashlib

import pytest
import torch
import torch.nn.functional as F

from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.presets import preset
from polc_training.discriminator import Discriminators
from polc_training.rate_distortion import LAMBDAS, RateDistortion
from polc_training.stages.gan import AdversarialStage


@pytest.fixture
def stage():
    torch.manual_seed(4)
    codec = TinyLicCodec(preset("polc-tiny"))
    codec.gain.data.mul_(20)
    return AdversarialStage(codec, Discriminators(32, 8), RateDistortion.official(8)).train()


def images():
    return torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))


def drawn(stage):
    """The level, the codec's output and the logits of reconstructions that a seed leads to."""
    torch.manual_seed(9)
    quality = torch.randint(1, 9, (1,)).float().expand(2)
    return quality, stage.codec(images(), quality)


def hash_of(module):
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def test_the_codec_minimises_rate_distortion_and_the_generators_cross_entropy(stage):
    state = {key: value.clone() for key, value in stage.state_dict().items()}
    torch.manual_seed(9)
    found = stage("codec", [images()])
    stage.load_state_dict(state)  # a pass of spectral normalisation changes the discriminators' buffers
    quality, output = drawn(stage)
    logits = stage.discriminators(output.x_hat, output.y_hat, quality)
    bpp = output.bits() / (64 * 128)
    mse = F.mse_loss(2 * images() - 1, 2 * output.x_hat - 1)
    expected = LAMBDAS[int(quality[0]) - 1] * bpp.mean() + mse + 0.8 * F.softplus(-logits).mean()
    torch.testing.assert_close(found["loss"], expected)


def test_the_discriminators_minimise_their_own_cross_entropies(stage):
    state = {key: value.clone() for key, value in stage.state_dict().items()}
    torch.manual_seed(9)
    found = stage("discriminator", [images()])["loss"]
    stage.load_state_dict(state)
    quality, output = drawn(stage)
    both = torch.cat([images(), output.x_hat])
    logits = stage.discriminators(both, output.y_hat.repeat(2, 1, 1, 1), quality.repeat(2))
    real, fake = logits.chunk(2)
    torch.testing.assert_close(found, F.softplus(-real).mean() + F.softplus(fake).mean())


def test_codec_and_discriminators_take_alternate_steps_and_leave_each_other_alone(stage):
    assert [tuple(stage.turn(step)) for step in range(3)] == [
        ("codec", "auxiliary"),
        ("discriminator",),
        ("codec", "auxiliary"),
    ]
    parts = {"codec": stage.codec, "auxiliary": stage.codec, "discriminator": stage.discriminators}
    for name, objective in stage.objectives.items():
        other = stage.codec if name == "discriminator" else stage.discriminators
        weights = {key: value.detach().clone() for key, value in other.named_parameters()}
        before = hash_of(parts[name])
        optimizer = objective.make_optimizer()
        stage(name, [images()])["loss"].backward()
        optimizer.step()
        stage.zero_grad()
        assert hash_of(parts[name]) != before
        assert all(torch.equal(value, weights[key]) for key, value in other.named_parameters())
