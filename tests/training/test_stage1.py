"""Stage 1's loss against a plain computation, and what it lets learn."""

import math

import pytest
import torch
import torch.nn.functional as F

from polc.families.tinylic.codec import TinyLicCodec
from polc.families.tinylic.presets import preset
from polc_training.levels import draw_levels
from polc_training.rate_distortion import LAMBDAS, RateDistortion, mse_lambdas, official_lambdas
from polc_training.stages.stage1 import CodecStage, LearningRates


@pytest.fixture
def codec():
    torch.manual_seed(3)
    codec = TinyLicCodec(preset("polc-tiny"))
    codec.gain.data.mul_(20)
    return codec


def images(count=2):
    return torch.rand(count, 3, 128, 192, generator=torch.Generator().manual_seed(1))


def distance(x, x_hat):
    return (F.avg_pool2d(x - x_hat, 8) ** 2).sum((1, 2, 3)).sqrt()


class Distance(torch.nn.Module):
    def forward(self, x, x_hat):
        return distance(x, x_hat)


def test_the_loss_is_the_sum_that_the_paper_gives(codec):
    stage = CodecStage(codec, RateDistortion.official(8), Distance()).train()
    torch.manual_seed(9)
    found = stage("codec", [images()])

    torch.manual_seed(9)
    level = int(torch.randint(1, 9, (1,)))
    x = images()
    output = codec(x, torch.full((2,), float(level)))
    bits = -(torch.log(output.y_likelihoods).sum() + torch.log(output.z_likelihoods).sum()) / math.log(2)
    bpp = bits / (2 * 128 * 192)
    mse = F.mse_loss(2 * x - 1, 2 * output.x_hat - 1)
    expected = LAMBDAS[level - 1] * bpp + mse + distance(x, output.x_hat).mean()
    torch.testing.assert_close(found["loss"], expected)
    torch.testing.assert_close(found["bpp"], bpp.detach())
    torch.testing.assert_close(found["mse"], mse.detach())


def test_mse_alone_is_compressais_loss_up_to_a_factor(codec):
    weights = RateDistortion.mse_only(8, balance=0.0)
    quality = torch.tensor([2.0, 7.0])
    bpp, mse_unit = torch.tensor([0.3, 1.2]), torch.tensor([2e-3, 1e-4])
    primes = 0.01 / torch.tensor(mse_lambdas(8))[[1, 6]]
    expected = ((primes * 255**2 * mse_unit + bpp) * 0.01 / primes).mean()
    torch.testing.assert_close(weights(quality, bpp, 4 * mse_unit, None), expected)


def test_balanced_weights_average_one_and_follow_the_square_root_of_lambda():
    weights = RateDistortion.mse_only(8, balance=0.5)
    found = weights.sample_weights(torch.arange(1.0, 9.0))
    assert float(found.mean()) == pytest.approx(1)
    ratio = (weights.lambdas[0] / weights.lambdas[7]) ** 0.5
    assert float(found[7] / found[0]) == pytest.approx(ratio)


def test_lambda_tables_fall_with_the_level_and_keep_their_ends_for_fewer_levels():
    for lambdas in (official_lambdas, mse_lambdas):
        table = lambdas(8)
        assert all(a > b for a, b in zip(table, table[1:], strict=False))
        assert lambdas(3)[0] == pytest.approx(table[0])
        assert lambdas(3)[2] == pytest.approx(table[7])
    assert official_lambdas(8) == LAMBDAS


def test_each_objective_owns_its_parameters_and_all_are_owned(codec):
    stage = CodecStage(codec, RateDistortion.official(8), rates=LearningRates(1e-4, 1e-3, 3, 20))
    owned = [id(p) for objective in stage.objectives.values() for p in objective.parameters()]
    assert sorted(owned) == sorted(id(p) for p in codec.parameters())
    assert [id(p) for p in stage.objectives["auxiliary"].parameters()] == [id(codec.prior.quantiles)]
    rates = [g["lr"] for g in stage.objectives["codec"].make_optimizer().param_groups]
    assert rates == pytest.approx([1e-4, 3e-4, 2e-3])


def test_a_codec_step_moves_all_but_the_quantiles_and_the_auxiliary_step_only_them(codec):
    stage = CodecStage(codec, RateDistortion.official(8), stratified=True).train()
    for name, objective in stage.objectives.items():
        before = {key: value.detach().clone() for key, value in codec.named_parameters()}
        optimizer = objective.make_optimizer()
        stage(name, [images(8)])["loss"].backward()
        optimizer.step()
        for parameter in stage.parameters():
            parameter.grad = None
        moved = {key for key, value in codec.named_parameters() if not torch.equal(value, before[key])}
        expected = {k for k in before if (k == "prior.quantiles") == (name == "auxiliary")}
        assert moved == expected


def test_levels_are_one_a_batch_or_spread_over_it():
    torch.manual_seed(0)
    drawn = torch.stack([draw_levels(4, 8, stratified=False) for _ in range(200)])
    assert (drawn == drawn[:, :1]).all()
    assert sorted(set(drawn[:, 0].tolist())) == list(range(1, 9))
    for _ in range(50):
        spread = draw_levels(4, 8, stratified=True).sort().values
        assert all(2 * k + 1 <= level <= 2 * k + 2 for k, level in enumerate(spread.tolist()))
