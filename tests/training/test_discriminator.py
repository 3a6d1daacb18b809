"""The eight HiFiC discriminators: their numbers, whom each judges, and where gradients go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from polc_training.discriminator import Discriminators, deception_loss, judgement_loss

M = 8


@pytest.fixture(scope="module")
def started() -> tuple[Discriminators, dict[str, Tensor]]:
    """Discriminators with their power iteration on its way, and a copy of their state."""
    torch.manual_seed(0)
    made = Discriminators(M, 8)
    image, _, y_hat = batch(8, 32)
    with torch.no_grad():
        for _ in range(3):
            made(image, y_hat, torch.arange(1, 9))
    return made, {key: value.clone() for key, value in made.state_dict().items()}


@pytest.fixture
def discriminators(started: tuple[Discriminators, dict[str, Tensor]]) -> Discriminators:
    made, state = started
    made.load_state_dict(state)
    made.zero_grad()
    return made.train()


def batch(count: int = 3, height: int = 48, width: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Originals, reconstructions and latents."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 3, height, width, generator=generator)
    x_hat = (image + 0.1 * torch.randn(image.shape, generator=generator)).requires_grad_()
    y_hat = torch.randn(count, M, height // 16, width // 16, generator=generator).requires_grad_()
    return image, x_hat, y_hat


def levels(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def recomputed(state: dict[str, Tensor], image: Tensor, y_hat: Tensor, level: int, steps: int) -> Tensor:
    """Logits from a state dict in float64: plain convolutions, weights divided by their spectral norm."""
    weights = {key: value.detach().double() for key, value in state.items()}

    def reflected(x: Tensor) -> Tensor:
        return F.pad(x, (1, 1, 1, 1), mode="reflect")

    context = F.conv2d(
        reflected(y_hat.double()),
        weights[f"context_conv.{level}.weight"],
        weights[f"context_conv.{level}.bias"],
    )
    context = torch.where(context > 0, context, 0.2 * context)
    x = torch.cat([image.double(), context.repeat_interleave(16, 2).repeat_interleave(16, 3)], 1)
    for number in range(1, 5):
        name = f"conv{number}.{level}"
        kernel, u, v = (weights[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
        matrix = kernel.flatten(1)
        for _ in range(steps):
            v = matrix.T @ u / (matrix.T @ u).norm()
            u = matrix @ v / (matrix @ v).norm()
        x = F.conv2d(reflected(x), kernel / (u @ matrix @ v), weights[f"{name}.bias"], stride=2)
        x = torch.where(x > 0, x, 0.2 * x)
    x = F.conv2d(x, weights[f"conv_out.{level}.weight"], weights[f"conv_out.{level}.bias"])
    return x.flatten(1)


@pytest.mark.parametrize("training", [True, False])
def test_logits_are_those_of_plain_convolutions(discriminators: Discriminators, training: bool) -> None:
    image, _, y_hat = batch()
    state = {key: value.clone() for key, value in discriminators.state_dict().items()}
    logits = discriminators.train(training)(image, y_hat, levels(4, 4, 4))
    assert logits.shape == (3, 3 * 2)
    wanted = recomputed(state, image, y_hat, 3, steps=int(training))
    assert torch.allclose(logits.double(), wanted, rtol=1e-4, atol=1e-6)
    assert wanted.std() > 1e-3


def test_the_power_iteration_finds_the_largest_singular_value(discriminators: Discriminators) -> None:
    image, _, y_hat = batch(1, 32)
    with torch.no_grad():
        for _ in range(60):
            discriminators(image, y_hat, levels(1))
    state = discriminators.state_dict()
    matrix = state["conv2.0.weight_orig"].flatten(1)
    sigma = state["conv2.0.weight_u"] @ matrix @ state["conv2.0.weight_v"]
    assert sigma.item() == pytest.approx(np.linalg.svd(matrix.numpy(), compute_uv=False)[0], rel=0.02)


def test_each_sample_of_a_mixed_batch_goes_to_its_level(discriminators: Discriminators) -> None:
    image, _, y_hat = batch(5)
    discriminators.eval()
    mixed = discriminators(image, y_hat, levels(7, 1, 7, 8, 2))
    for index, level in enumerate((7, 1, 7, 8, 2)):
        alone = discriminators(image[[index]], y_hat[[index]], levels(level))
        assert torch.allclose(mixed[[index]], alone, atol=1e-6)
    other = discriminators(image, y_hat, levels(1, 1, 7, 8, 2))
    assert not torch.allclose(mixed[0], other[0], atol=1e-6)


def test_only_the_networks_in_the_batch_learn(discriminators: Discriminators) -> None:
    before = {key: value.clone() for key, value in discriminators.state_dict().items()}
    discriminators.discriminator_loss(*batch(), levels(2, 5, 2)).backward()
    for key, parameter in discriminators.named_parameters():
        assert (parameter.grad is not None) == (key.split(".")[1] in ("1", "4")), key
    after = discriminators.state_dict()
    assert torch.equal(before["conv1.0.weight_u"], after["conv1.0.weight_u"])
    assert not torch.equal(before["conv1.1.weight_u"], after["conv1.1.weight_u"])


def test_the_discriminator_step_does_not_reach_the_codec(discriminators: Discriminators) -> None:
    image, x_hat, y_hat = batch()
    discriminators.discriminator_loss(image, x_hat, y_hat, levels(1, 2, 3)).backward()
    assert x_hat.grad is None
    assert y_hat.grad is None


def test_the_generator_step_reaches_the_reconstruction_alone(discriminators: Discriminators) -> None:
    _, x_hat, y_hat = batch()
    discriminators.generator_loss(x_hat, y_hat, levels(1, 2, 3)).backward()
    assert x_hat.grad is not None
    assert x_hat.grad.abs().sum() > 0
    assert y_hat.grad is None
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in discriminators.parameters()
    )


def test_losses_are_cross_entropies(discriminators: Discriminators) -> None:
    image, x_hat, y_hat = batch()
    quality = levels(3, 3, 6)
    discriminators.eval()
    real, fake = (discriminators(x, y_hat, quality).detach().double() for x in (image, x_hat))
    told = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
    fooled = -fake.sigmoid().log().mean()
    assert torch.allclose(discriminators.discriminator_loss(image, x_hat, y_hat, quality).double(), told)
    assert torch.allclose(discriminators.generator_loss(x_hat, y_hat, quality).double(), fooled)
    assert judgement_loss(torch.tensor([9.0]), torch.tensor([-9.0])) < 1e-3
    assert deception_loss(torch.tensor([-9.0])) == pytest.approx(9, abs=1e-3)


def test_weights_have_the_official_names_shapes_and_initialisation(discriminators: Discriminators) -> None:
    state = discriminators.state_dict()
    kinds = {"context_conv": ("weight", "bias"), "conv_out": ("weight", "bias")}
    kinds |= {f"conv{n}": ("weight_orig", "bias", "weight_u", "weight_v") for n in range(1, 5)}
    assert set(state) == {
        f"{layer}.{i}.{k}" for layer, names in kinds.items() for i in range(8) for k in names
    }
    shapes = {"context_conv.7.weight": (12, M, 3, 3), "conv_out.0.weight": (1, 512, 1, 1)}
    shapes |= {"conv1.0.weight_orig": (64, 15, 4, 4), "conv4.3.weight_orig": (512, 256, 4, 4)}
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    for key, value in state.items():
        if key.endswith("bias"):
            assert (value == 0).all()
        elif key.endswith(("weight", "weight_orig")):
            assert value.std().item() == pytest.approx(0.02, rel=0.15)


def test_a_few_steps_teach_them_to_tell_the_pictures_apart(discriminators: Discriminators) -> None:
    image, _, y_hat = batch(height=32)
    x_hat = (0.3 * image).requires_grad_()
    optimizer = torch.optim.Adam(discriminators.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = discriminators.discriminator_loss(image, x_hat, y_hat, levels(1, 1, 8))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2 * np.log(2), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("value", [0, 9, 2.5])
def test_a_quality_that_is_no_level_is_refused(discriminators: Discriminators, value: float) -> None:
    image, _, y_hat = batch(1)
    with pytest.raises(ValueError, match=r"whole qualities 1\.\.8, got"):
        discriminators(image, y_hat, levels(value))
