"""LPIPS as a loss: the package's numbers, the official random shift, weights from a file or a clear error."""

from __future__ import annotations

import re
import time
import urllib.error
from pathlib import Path
from typing import Any

import lpips
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from polc_runtime.errors import CheckpointError
from polc_training.perceptual import PerceptualLoss, jointly_shifted

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torchvision")

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def vgg_features() -> dict[str, Tensor]:
    """Random weights of vgg16's features, by torchvision's names; activations keep their scale."""
    torch.manual_seed(0)
    state = {}
    for number, before, after in zip(CONVOLUTIONS, WIDTHS, WIDTHS[1:], strict=False):
        state[f"features.{number}.weight"] = torch.randn(after, before, 3, 3) * (2 / (9 * before)) ** 0.5
        state[f"features.{number}.bias"] = torch.randn(after) * 0.1
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's, which has a classifier too."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16-00000000.pth"
    torch.save({**vgg_features(), "classifier.6.bias": torch.zeros(1000)}, path)
    return path


@pytest.fixture(scope="module")
def loss(weights: Path) -> PerceptualLoss:
    return PerceptualLoss(weights)


@pytest.fixture(scope="module")
def reference() -> Any:
    """The package's own module, its trunk filled convolution by convolution."""
    module = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = vgg_features()
    trunk = [layer for layer in module.net.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for number, layer in zip(CONVOLUTIONS, trunk, strict=True):
            layer.weight.copy_(state[f"features.{number}.weight"])
            layer.bias.copy_(state[f"features.{number}.bias"])
    return module


def pictures(count: int = 2, size: int = 48) -> tuple[Tensor, Tensor]:
    generator = Generator().manual_seed(1)
    original = torch.rand(count, 3, size, size, generator=generator)
    return original + 0.2 * torch.randn(original.shape, generator=generator), original


def bicubic(wanted: int, length: int) -> NDArray[np.float64]:
    """The matrix [wanted,length] of Keys' interpolation with a = -0.75, pixels being areas."""
    matrix = np.zeros((wanted, length))
    for row in range(wanted):
        place = (row + 0.5) * length / wanted - 0.5
        for tap in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - tap)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, min(max(tap, 0), length - 1)] += near if d <= 1 else far
    return matrix


def test_the_distance_is_the_packages(loss: PerceptualLoss, reference: Any) -> None:
    decoded, original = pictures()
    wanted = reference(decoded * 2 - 1, original * 2 - 1).flatten()
    assert loss.distance(decoded, original).shape == (2,)
    assert torch.allclose(loss.distance(decoded, original), wanted, rtol=1e-5)
    assert wanted.min() > 0.01


def test_the_loss_is_the_distance_of_the_shifted_pictures(loss: PerceptualLoss, reference: Any) -> None:
    decoded, original = pictures()
    moved = jointly_shifted(decoded, original, Generator().manual_seed(5))
    wanted = reference(*moved, normalize=True).flatten()
    assert torch.allclose(loss(decoded, original, Generator().manual_seed(5)), wanted, rtol=1e-5)
    assert not torch.allclose(loss(decoded, original, Generator().manual_seed(6)), wanted, rtol=1e-5)


def test_gradients_reach_the_decoded_picture_and_no_weights(loss: PerceptualLoss) -> None:
    decoded, original = pictures(1, 32)
    loss(decoded.requires_grad_(), original).sum().backward()
    assert decoded.grad is not None
    assert decoded.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_it_stays_in_evaluation_mode(loss: PerceptualLoss) -> None:
    around = nn.Sequential(loss).train()
    assert around.training
    assert not any(module.training for module in loss.modules())


@pytest.mark.parametrize("seed", range(3))
def test_the_shift_pads_cuts_and_resizes_as_written_down(seed: int) -> None:
    decoded, original = (picture.double()[:, :, :20] for picture in pictures(1, 24))
    draws = torch.randint(16, (4,), generator=Generator().manual_seed(seed)).tolist()
    top, bottom, left, right = draws
    moved = jointly_shifted(decoded, original, Generator().manual_seed(seed))
    for before, after in zip((decoded, original), moved, strict=True):
        padded = np.pad(before.numpy(), ((0, 0), (0, 0), (15, 15), (15, 15)), mode="edge")
        cut = padded[:, :, top : 50 - bottom, left : 54 - right]
        wanted = bicubic(20, cut.shape[2]) @ cut @ bicubic(24, cut.shape[3]).T
        assert np.abs(after.numpy() - wanted).max() < 1e-9


def test_the_shift_can_be_none_and_draws_every_cut() -> None:
    column = torch.arange(64.0).expand(1, 1, 2, 64)
    widths = set()
    for seed in range(2000):
        moved, same = jointly_shifted(column, column, Generator().manual_seed(seed))
        assert torch.equal(moved, same)
        widths.add(round(float(moved[0, 0, 0, 48] - moved[0, 0, 0, 16]) * 2))
    assert widths == set(range(64, 95))


def test_without_a_generator_torchs_global_one_is_drawn_from() -> None:
    decoded, original = pictures(1)
    torch.manual_seed(3)
    first = jointly_shifted(decoded, original)[0]
    assert torch.equal(first, jointly_shifted(decoded, original, Generator().manual_seed(3))[0])


def test_weights_are_taken_from_torchs_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: PerceptualLoss
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(vgg_features(), tmp_path / "hub/checkpoints/vgg16-397923af.pth")
    decoded, original = pictures()
    assert torch.equal(PerceptualLoss().distance(decoded, original), loss.distance(decoded, original))


def test_without_weights_or_a_connection_one_line_says_so_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*arguments: object, timeout: float) -> None:
        assert 0 < timeout <= 10
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path))) as caught:
        PerceptualLoss()
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)
    assert "no route" in str(caught.value)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(
        CheckpointError, match=r"not hold the weights of torchvision's vgg16: missing weights: features\.0"
    ):
        PerceptualLoss(path)
    torch.save(nn.ReLU(), path)
    with pytest.raises(CheckpointError, match="pickled objects"):
        PerceptualLoss(path)
    with pytest.raises(CheckpointError, match="no such file"):
        PerceptualLoss(tmp_path / "missing.pth")
