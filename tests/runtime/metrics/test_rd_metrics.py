"""Metrics of decoded pictures: PSNR's formula, and others by entry point."""

import math
from importlib import metadata

import numpy as np
import pytest

from polc_runtime.errors import BackendUnavailable, ImageError, UsageError
from polc_runtime.metrics import distortion as metrics
from polc_runtime.metrics.distortion import choose_metrics, psnr

GROUP = "polc.metrics"
MODULE = """
from polc_runtime.errors import BackendUnavailable

def luma(original, decoded):
    if original.shape[0] < 20:
        raise ValueError("under 20 rows")
    return abs(float(original.mean()) - float(decoded.mean()))

def without_weights(original, decoded):
    raise BackendUnavailable("the weights could not be had")

def infinite(original, decoded):
    return float("inf")
"""


def picture(height=24, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def entry_points(monkeypatch, tmp_path):
    """Registers metrics, by the name of a function in a module that is there, or of anything else."""
    (tmp_path / "metrics_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def register(**functions):
        points = [
            metadata.EntryPoint(
                name.replace("_", "-"), value if ":" in value else f"metrics_of_a_test:{value}", GROUP
            )
            for name, value in functions.items()
        ]
        monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == GROUP else [])

    return register


def test_psnr_is_the_textbook_formula():
    original, decoded = picture(seed=1), picture(seed=2)
    rmse = math.sqrt(
        sum((float(a) - float(b)) ** 2 for a, b in zip(original.flat, decoded.flat, strict=True))
        / original.size
    )
    assert psnr(original, decoded) == pytest.approx(20 * math.log10(255 / rmse), abs=1e-12)


def test_psnr_of_one_level_off_everywhere():
    original = np.full((5, 7, 3), 254, np.uint8)
    assert psnr(original, original + 1) == pytest.approx(48.1308036, abs=1e-7)
    assert psnr(original + 1, original) == psnr(original, original + 1)


def test_equal_pictures_have_no_finite_psnr():
    with pytest.raises(ImageError, match="equal"):
        psnr(picture(), picture())


def test_psnr_refuses_two_sizes():
    with pytest.raises(ImageError, match=r"sizes differ: \[24, 32, 3\] and \[24, 31, 3\]"):
        psnr(picture(), picture(width=31))


def test_all_metrics_that_run_are_the_default(entry_points):
    entry_points(luma="luma", absent="no_such_module:function")
    chosen = choose_metrics()
    assert list(chosen.functions) == ["psnr", "luma"]
    assert chosen.unavailable == {"absent": "needs no_such_module"}


def test_results_have_the_names_that_compressai_uses(entry_points):
    entry_points(ms_ssim="luma", lpips="luma")
    values, reasons = choose_metrics().measure(picture(seed=1), picture(seed=2))
    assert list(values) == ["psnr-rgb", "ms-ssim-rgb", "lpips-vgg"] and reasons == {}


def test_a_metric_is_chosen_by_name(entry_points):
    entry_points(luma="luma", absent="no_such_module:function")
    assert list(choose_metrics(["luma"]).functions) == ["luma"]
    with pytest.raises(UsageError, match="no metric is named 'vmaf'; there are psnr, luma, absent"):
        choose_metrics(["psnr", "vmaf"])


def test_a_metric_that_is_asked_for_and_does_not_run_is_an_error(entry_points):
    entry_points(absent="no_such_module:function")
    with pytest.raises(BackendUnavailable, match="absent cannot be measured: needs no_such_module"):
        choose_metrics(["absent"])


def test_a_picture_that_a_metric_does_not_take_has_a_reason_and_no_number(entry_points):
    entry_points(luma="luma", infinite="infinite")
    values, reasons = choose_metrics().measure(picture(height=19, seed=1), picture(height=19, seed=2))
    assert values["luma"] is None and values["infinite"] is None and values["psnr-rgb"] > 0
    assert reasons == {"luma": "under 20 rows", "infinite": "the value is inf"}


def test_a_metric_that_turns_out_not_to_run_is_left_out(entry_points):
    entry_points(luma="luma", lpips="without_weights")
    chosen = choose_metrics()
    values, _ = chosen.measure(picture(seed=1), picture(seed=2))
    assert list(values) == ["psnr-rgb", "luma"]
    assert chosen.unavailable == {"lpips": "the weights could not be had"}
    assert "lpips" not in chosen.functions


def test_the_default_needs_no_other_package(entry_points):
    entry_points()
    assert list(choose_metrics().functions) == list(metrics.BUILT_IN) == ["psnr"]
