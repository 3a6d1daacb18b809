"""The full-size codec in PyTorch against the official model's golden vectors."""

import numpy as np
import pytest
import torch
from golden_checks import ALL, CASES, Case, assert_close

from polc import load_checkpoint
from polc.backends.torch import TorchBackend

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(official_checkpoint):
    return load_checkpoint(official_checkpoint)


@pytest.mark.parametrize("check", ALL)
@pytest.mark.parametrize("name", CASES)
def test_torch_gives_the_golden_values(golden, checkpoint, name, check):
    check(TorchBackend(checkpoint.codec), checkpoint.tables()[0], Case(golden, name))


@pytest.mark.parametrize("name", CASES)
def test_every_stage_gives_the_golden_corner_and_statistics(golden, checkpoint, name):
    case = Case(golden, name)
    codec = checkpoint.codec
    outputs = {}
    hooks = []
    for transform, convolution_first in (("g_a", True), ("h_a", True), ("h_s", False), ("g_s", False)):
        for i, stage in enumerate(getattr(codec, transform)):
            for part in ("conv", "blocks"):
                index = 2 * i + ((part == "conv") != convolution_first)
                key = f"{transform}{index}"
                hook = lambda module, args, out, key=key: outputs.__setitem__(key, out)  # noqa: E731
                hooks.append(getattr(stage, part).register_forward_hook(hook))
    with torch.no_grad():
        quality = torch.from_numpy(case.level)
        codec.analyse(torch.from_numpy(case.image), quality)
        codec.hyper_synthesise(torch.from_numpy(case["z_hat"]), quality)
        codec.synthesise(torch.from_numpy(case["y_hat"]), quality)
    for hook in hooks:
        hook.remove()
    assert len(outputs) == 24
    for key, value in outputs.items():
        mean, std = case[f"stagestat_{key}"]
        assert_close(value[0, :8, :8, :8].numpy(), case[f"stage_{key}"], key)
        np.testing.assert_allclose([value.mean(), value.std()], [mean, std], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in CASES if "5.5" not in name])
def test_forward_estimates_the_golden_bits(golden, checkpoint, name):
    case = Case(golden, name)
    with torch.no_grad():
        output = checkpoint.codec(torch.from_numpy(case.image), torch.from_numpy(case.level))
    bits = [float(-p.double().log2().sum()) for p in (output.y_likelihoods, output.z_likelihoods)]
    np.testing.assert_allclose(bits, [case["bits_est_y"][0], case["bits_est_z"][0]], rtol=1e-5)
    assert_close(output.y_hat.numpy(), case["y_hat"], "y_hat")
    assert float(output.bits()) / case.image[0, 0].size == pytest.approx(float(case["bpp_est"][0]), rel=1e-5)
