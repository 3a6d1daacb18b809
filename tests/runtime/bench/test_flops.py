"""Arithmetic of graphs, from the multiply-accumulates in a bundle's coding plan, and ratios made of it."""

from dataclasses import replace

import pytest

from polc_runtime import Bundle
from polc_runtime.bench.speed.flops import graph_flops, padded_grid
from polc_runtime.bench.speed.instruments import Call, Lap
from polc_runtime.bench.speed.ratios import Work, operation_time
from polc_runtime.bench.speed.results import Pair


@pytest.fixture(scope="module")
def manifest():
    """That of polc-nano, with a plan that states some graphs' arithmetic."""
    found = Bundle.load("nano").manifest
    macs = {"analysis": 500.0, "hyper_synthesis": 10.0, **{f"context_{n}": 20.0 + n for n in range(9)}}
    return replace(found, plan=replace(found.plan, macs=macs))


def test_a_multiply_accumulate_is_two_operations_at_every_pixel(manifest):
    assert graph_flops(manifest, "analysis", 192, 256) == 2 * 500 * 192 * 256
    assert graph_flops(manifest, "analysis", 192, 256, batch=3) == 3 * 2 * 500 * 192 * 256


def test_what_the_plan_does_not_state_has_no_number(manifest):
    assert graph_flops(manifest, "task_cifar10", 192, 192) is None
    assert graph_flops(manifest, "synthesis", 192, 192) is None


@pytest.mark.parametrize(
    ("inputs", "grid"),
    [
        ({"image": (1, 3, 512, 768), "quality": (1,)}, (512, 768)),
        ({"params": (1, 640, 32, 48), "y_hat": (1, 320, 32, 48)}, (512, 768)),
        ({"z_hat": (1, 192, 8, 12), "quality": (1,)}, (512, 768)),
        ({"quality": (1,)}, None),
    ],
)
def test_the_padded_size_is_read_from_the_inputs(manifest, inputs, grid):
    assert padded_grid(manifest, inputs) == grid


STEPS = [f"context_{n}" for n in range(9)]
RATE = Pair(2.0, 4.0)


@pytest.fixture
def compress(manifest):
    """Two runs of a compression, on the processor at 2 and at best 4 FLOP/s."""

    def measured(rate=RATE, device=()):
        stages = {"analysis": 4.0, "hyper_synthesis": 1.0, **dict.fromkeys(STEPS, 0.5), "entropy": 0.25}
        laps = [
            Lap(scale * 9.75, {name: scale * s for name, s in stages.items()}, None, dict(device))
            for scale in (1.0, 3.0)
        ]
        shapes = {"image": (1, 3, 192, 192)}
        calls = [Call(name, shapes) for name in ("analysis", "hyper_synthesis", *STEPS)]
        return operation_time("compress", laps, calls, manifest, rate, Work(1, 0.5, 70, 30))

    return measured


def test_ratios_are_those_of_medians_and_of_best_runs(compress):
    found = compress()
    stages = {stage.stage: stage for stage in found.stages}
    flops = 2 * 500 * 192 * 192
    assert stages["analysis"].gemm_flops == flops
    assert stages["analysis"].gflops_per_second == pytest.approx(flops / 8 / 1e9)
    assert stages["analysis"].limit_seconds == Pair(flops / 2, flops / 4)
    assert stages["analysis"].ratio == Pair(8 / (flops / 2), 4 / (flops / 4))
    assert found.ratios["analysis_to_limit"] == stages["analysis"].ratio
    assert found.ratios["whole_to_analysis_limit"].median == pytest.approx(19.5 / (flops / 2))
    assert found.ratios["context_and_hyper_to_analysis"].median == pytest.approx((2 + 9) / 8)
    assert found.ratios["context_to_whole"].best == pytest.approx(4.5 / 9.75)
    assert found.ratios["entropy_to_whole"].median == pytest.approx(0.25 / 9.75)
    assert stages["entropy"].gemm_flops is None and stages["entropy"].ratio is None


def test_coding_steps_are_summed_and_folded_into_one_row(compress):
    found = compress()
    assert found.context_steps.seconds.median == pytest.approx(9.0)
    assert found.context_steps.gemm_flops == 2 * 192 * 192 * sum(20 + n for n in range(9))
    assert [stage.stage for stage in found.folded()] == [
        "analysis",
        "hyper_synthesis",
        "context steps",
        "entropy",
    ]
    assert "coding_steps" not in found.to_dict()


def test_rates_and_memory_are_those_of_the_work(compress):
    found = compress()
    assert (found.images_per_second, found.megapixels_per_second) == (1 / 19.5, 0.5 / 19.5)
    assert (found.peak_bytes, found.growth_bytes) == (70, 40)


def test_graphs_on_a_device_have_its_seconds_and_no_limit(compress):
    found = compress(rate=None, device={"analysis": 2.0})
    assert found.stages[0].device_seconds.median == 2.0 and found.stages[1].device_seconds is None
    assert found.stages[0].ratio is None and found.ratios["analysis_to_limit"] is None
