"""The closed-form start: what it reconstructs, and that its scales are what it says."""

import numpy as np
import pytest
import torch

from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.presets import preset
from polc_training.initialise import initialise, principal_components
from polc_training.rate_distortion import RateDistortion, level_psnr, mean_squared_error


def smooth_images(count=24):
    noise = torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    x = torch.nn.functional.interpolate(noise, (128, 128), mode="bicubic", align_corners=False)
    return (0.5 + 0.15 * x).clamp(0, 1)


@pytest.fixture(scope="module")
def started():
    torch.manual_seed(0)
    codec = TinyLicCodec(preset("polc-tiny")).eval()
    initialise(codec, smooth_images(), RateDistortion.mse_only(8))
    return codec


def test_components_are_orthonormal_and_ordered_as_numpys_svd_has_them():
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64) * torch.tensor([1.0, 3.0])[:, None, None]
    mean, basis = principal_components(x, 5)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5, dtype=torch.float64))
    blocks = np.stack(
        [
            x[b, :, i : i + 2, j : j + 2].numpy().ravel()
            for b in range(4)
            for i in range(0, 8, 2)
            for j in range(0, 8, 2)
        ]
    )
    np.testing.assert_allclose(mean, blocks.mean(0))
    _, _, rows = np.linalg.svd(blocks - blocks.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs((basis.numpy() * rows[:5]).sum(1)), 1, atol=1e-9)


@torch.no_grad()
def test_without_quantisation_it_reconstructs_smooth_images_at_every_level(started):
    x = smooth_images(4)
    for level in (1.0, 4.5, 8.0):
        quality = torch.full((4,), level)
        x_hat = started.synthesise(started.analyse(x, quality)[0], quality)
        assert float(level_psnr(mean_squared_error(x, x_hat)).min()) > 33
    torch.manual_seed(0)
    random = TinyLicCodec(preset("polc-tiny")).eval()
    x_hat = random.synthesise(random.analyse(x, quality)[0], quality)
    assert float(level_psnr(mean_squared_error(x, x_hat)).max()) < 20


@torch.no_grad()
def test_rate_and_quality_rise_with_the_level_from_the_start(started):
    x = smooth_images(4)
    outputs = [started(x, torch.full((4,), float(level))) for level in range(1, 9)]
    psnr = [float(level_psnr(mean_squared_error(x, o.x_hat)).mean()) for o in outputs]
    bits = [float(o.bits().mean()) for o in outputs]
    assert psnr == sorted(psnr) and bits == sorted(bits)


@torch.no_grad()
def test_gains_follow_the_square_root_of_lambda_prime_and_invert(started):
    primes = 0.01 / np.asarray(RateDistortion.mse_only(8).lambdas)
    np.testing.assert_allclose(
        started.gain.numpy(), np.repeat(50 * np.sqrt(primes)[:, None], 32, 1), rtol=1e-4
    )
    np.testing.assert_allclose((started.gain * started.inverse_gain).numpy(), 1, rtol=1e-6)


@torch.no_grad()
def test_norms_leave_every_channel_at_unit_deviation(started):
    seen = {}
    norm = started.g_a[1].blocks[0].norm1
    handle = norm.register_forward_hook(lambda m, i, o: seen.update(out=o))
    started.g_a(smooth_images(), torch.ones(24))
    handle.remove()
    np.testing.assert_allclose(seen["out"].flatten(0, 2).std(0).numpy(), 1, rtol=0.05)
