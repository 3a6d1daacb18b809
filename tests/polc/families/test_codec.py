"""The codec's training and evaluation paths agree where they must."""

import pytest
import torch
from formula import formula_codec

from polc import Codec, preset
from polc.families.tinylic.context import gather, scatter
from polc.families.tinylic.levels import interpolate_levels
from polc_runtime.bitstream.schedule import nine_steps


@pytest.fixture(scope="module")
def codec():
    return formula_codec(preset("polc-tiny"))


def image(batch=1, seed=0):
    return torch.rand(batch, 3, 192, 256, generator=torch.Generator().manual_seed(seed))


def test_level_tables_interpolate_geometrically():
    table = torch.tensor([[1.0, -2.0], [4.0, 8.0], [9.0, 1.0]])
    values = interpolate_levels(table, torch.tensor([1.0, 1.5, 2.25, 3.0]))
    expected = [[1, 2], [2, 4], [4**0.75 * 9**0.25, 8**0.75], [9, 1]]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_steps_partition_the_latent():
    counts = torch.zeros(1, 32, 4, 6)
    for step in nine_steps(32):
        counts = scatter(counts, step, gather(counts, step) + 1)
    assert torch.equal(counts, torch.ones_like(counts))


def test_context_sees_only_what_was_decoded_before(codec):
    """Changing what a step or a later one codes changes none of the step's parameters."""
    torch.manual_seed(0)
    params, y_hat = torch.randn(1, 64, 8, 8), torch.randn(1, 32, 8, 8)
    steps = codec.context.steps
    with torch.no_grad():
        for step in steps:
            changed = y_hat
            for later in steps[step.index :]:
                changed = scatter(changed, later, gather(changed, later) + 5)
            found = []
            for latent in (y_hat, changed):
                shared = codec.context.channel_context(codec.context.group_of[step.index], params, latent)
                found.append(codec.context.step_parameters(step.index, params, latent, shared))
            assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_batch_of_mixed_qualities_equals_its_samples(codec):
    quality = torch.tensor([1.0, 6.5])
    with torch.no_grad():
        both = codec(image(2), quality)
        for i in range(2):
            alone = codec(image(2)[i : i + 1], quality[i : i + 1])
            torch.testing.assert_close(both.x_hat[i : i + 1], alone.x_hat, atol=1e-5, rtol=0)
            torch.testing.assert_close(both.bits()[i : i + 1], alone.bits(), atol=0, rtol=1e-4)


def test_training_noise_moves_rates_but_not_what_is_decoded(codec):
    quality = torch.tensor([3.0])
    with torch.no_grad():
        evaluated = codec(image(), quality)
        for module in (codec.prior, codec.gaussian):
            module.train()
        noisy = codec(image(), quality)
        codec.eval()
    assert torch.equal(noisy.y_hat, evaluated.y_hat) and torch.equal(noisy.x_hat, evaluated.x_hat)
    assert not torch.equal(noisy.y_likelihoods, evaluated.y_likelihoods)
    assert noisy.bits() == pytest.approx(evaluated.bits(), rel=0.1)


def test_gradient_reaches_every_weight_in_training():
    codec = formula_codec(preset("polc-tiny")).train()
    output = codec(image(2), torch.tensor([2.0, 7.0]))
    (output.bits().sum() + output.x_hat.square().sum() + codec.prior.loss()).backward()
    without = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_masked_taps_stay_zero_through_a_training_step():
    codec = formula_codec(preset("polc-tiny")).train()
    optimiser = torch.optim.Adam(codec.parameters(), 1e-2)
    codec(image(1), torch.tensor([4.0])).bits().sum().backward()
    optimiser.step()
    for module in codec.context.spatial.values():
        assert torch.equal(module.weight * module.mask, module.weight)


def test_without_synthesis_the_rest_is_the_same(codec):
    with torch.no_grad():
        quality = torch.tensor([5.0])
        whole, part = codec(image(), quality), codec(image(), quality, reconstruct=False)
    assert part.x_hat is None and torch.equal(part.y_hat, whole.y_hat)


def test_full_size_model_has_the_published_parameter_counts(golden):
    import json

    counts = json.loads((golden / "param_counts.json").read_text())["TinyLICVR"]
    with torch.device("meta"):
        codec = Codec(preset("polc-base"))
    for name in ("g_a", "h_a", "h_s", "g_s"):
        assert sum(p.numel() for p in getattr(codec, name).parameters()) == counts[name]
    assert sum(p.numel() for p in codec.parameters()) == counts["TOTAL"]
