"""Figures of merit against plain recomputations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from polc_runtime.errors import BackendUnavailable
from polc_training import metrics
from polc_training.metrics import lpips_vgg, ms_ssim

Pixels = NDArray[np.uint8]


def pair(height: int = 192, width: int = 176, noise: float = 12) -> tuple[Pixels, Pixels]:
    """A smooth picture and a noisy copy of it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)], -1)
    original = 128 + 80 * waves
    decoded = original + noise * rng.standard_normal(original.shape)
    return original.round().astype(np.uint8), decoded.clip(0, 255).round().astype(np.uint8)


def slow_ms_ssim(original: Pixels, decoded: Pixels) -> float:
    """Wang et al. 2003, channel by channel: five scales, an 11x11 Gaussian window of sigma 1.5."""
    window = np.exp(-(np.arange(-5, 6.0) ** 2) / 4.5)
    window /= window.sum()

    def smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return correlate1d(correlate1d(x, window, 0), window, 1)[5:-5, 5:-5]

    values = []
    for channel in range(3):
        x, y, value = original[..., channel].astype(float), decoded[..., channel].astype(float), 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mx, my = smooth(x), smooth(y)
            vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
            contrast = (2 * cov + 58.5225) / (vx + vy + 58.5225)
            luminance = (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
            value *= (contrast * luminance if scale == 4 else contrast).mean() ** weight
            x, y = (p.reshape(p.shape[0] // 2, 2, -1, 2).mean((1, 3)) if scale < 4 else p for p in (x, y))
        values.append(value)
    return float(np.mean(values))


@pytest.mark.parametrize("noise", [3, 12, 40])
def test_ms_ssim_is_that_of_the_paper(noise: float) -> None:
    original, decoded = pair(noise=noise)
    assert ms_ssim(original, decoded) == pytest.approx(slow_ms_ssim(original, decoded), abs=1e-6)
    assert ms_ssim(original, original) == pytest.approx(1)


def test_ms_ssim_says_which_images_are_too_small() -> None:
    small = np.zeros((300, 160, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 161 pixels on the shorter side; this one is 160x300"):
        ms_ssim(small, small)
    large = np.zeros((161, 161, 3), np.uint8)
    assert ms_ssim(large, large) == pytest.approx(1)


def test_lpips_takes_images_to_the_loss_in_0_to_1(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake(nn.Module):
        def distance(self, decoded: Tensor, original: Tensor) -> Tensor:
            assert decoded.shape == original.shape == (1, 3, 32, 24)
            return (decoded - original).abs().mean((1, 2, 3))

    monkeypatch.setattr(metrics, "PerceptualLoss", lambda weights: Fake())
    metrics._perceptual.cache_clear()
    original, decoded = pair(32, 24)
    wanted = np.abs(original.astype(float) - decoded).mean() / 255
    assert lpips_vgg(original, decoded, Path("weights.pth")) == pytest.approx(wanted, rel=1e-5)
    metrics._perceptual.cache_clear()


def test_lpips_without_weights_cannot_run_at_all(tmp_path: Path) -> None:
    original, decoded = pair(32, 24)
    with pytest.raises(BackendUnavailable, match="no such file"):
        lpips_vgg(original, decoded, tmp_path / "missing.pth")


@pytest.mark.parametrize("metric", [ms_ssim, lpips_vgg])
def test_images_of_another_type_or_size_are_refused(metric: Callable[[Pixels, Pixels], float]) -> None:
    image = np.zeros((170, 170, 3), np.uint8)
    with pytest.raises(ValueError, match=r"uint8 \[H,W,3\]; got float64"):
        metric(image, image.astype(float))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images of one size, got \[170, 170, 3\] and \[170, 171, 3\]"):
        metric(image, np.zeros((170, 171, 3), np.uint8))
