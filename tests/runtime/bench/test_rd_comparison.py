"""Curves against each other: BD-rates known in closed form, equal rates, worst pictures, published files."""

import json

import numpy as np
import pytest

from polc_runtime.bench import rate_distortion
from polc_runtime.bench.quality.comparison import compare, difference
from polc_runtime.bench.quality.curves import Curve, ImageResult, mean_columns, read_curves
from polc_runtime.cli.bench.text import comparison_text
from polc_runtime.errors import DataError

RATES = [0.1, 0.2, 0.4, 0.8]
PSNR = [28.0, 30.5, 33.0, 36.0]


def curve(name="one", rates=RATES, psnr=PSNR, images=None):
    """A curve; `images` by name are (rates, PSNR)."""
    per_image = tuple(
        ImageResult(
            image,
            4,
            3,
            f"hash of {image}",
            {"quality": [1.0, 2.0, 3.0, 4.0][: len(x)], "bpp": x, "psnr-rgb": y},
        )
        for image, (x, y) in (images or {}).items()
    )
    columns = mean_columns(per_image) if images else {"bpp": list(rates), "psnr-rgb": list(psnr)}
    return Curve(name, "", columns, per_image)


def scaled(factor, offset=0.0):
    return [factor * rate for rate in RATES], [value + offset for value in PSNR]


@pytest.fixture
def bjontegaard():
    return pytest.importorskip("bjontegaard", reason="BD-rates need the package bjontegaard")


def test_a_tenth_less_rate_at_every_psnr_is_a_bd_rate_of_minus_ten(bjontegaard):
    result = compare(curve("ours", *scaled(0.9)), curve("theirs"))
    assert result.bd_rate.value == pytest.approx(-10, abs=1e-9)
    assert result.bd_rate.overlap == pytest.approx(1)
    assert result.bd_psnr.value > 0


def test_one_db_more_at_every_rate_is_a_bd_psnr_of_one(bjontegaard):
    result = compare(curve("ours", *scaled(1, 1.0)), curve("theirs"))
    assert result.bd_psnr.value == pytest.approx(1, abs=1e-9)
    assert result.bd_psnr.overlap == pytest.approx(1)
    assert result.bd_rate.value < 0


def test_the_order_of_points_does_not_matter(bjontegaard):
    backwards = curve("ours", *(values[::-1] for values in scaled(0.9)))
    assert compare(backwards, curve("theirs")).bd_rate.value == pytest.approx(-10, abs=1e-9)


def test_curves_of_different_lengths_compare(bjontegaard):
    def line(rates):
        return rates, [30 + 10 * np.log10(rate) for rate in rates]

    result = compare(
        curve("ours", *line([0.1, 0.3, 0.9])), curve("theirs", *line([0.05, 0.1, 0.2, 0.5, 1.0, 2.0]))
    )
    assert result.bd_rate.value == pytest.approx(0, abs=1e-9)
    assert result.bd_psnr.value == pytest.approx(0, abs=1e-9)


def test_curves_that_do_not_overlap_have_a_reason_and_no_number(bjontegaard):
    result = compare(curve("ours", *scaled(1, 20.0)), curve("theirs"))
    assert result.bd_rate.value is None
    assert result.bd_rate.reason == (
        "the curves do not overlap in psnr-rgb (ours from 48 to 56, theirs from 28 to 36)"
    )
    assert result.bd_psnr.value == pytest.approx(20)
    apart = compare(curve("ours", *scaled(0.1)), curve("theirs"))
    assert apart.bd_psnr.value is None and apart.bd_rate.value == pytest.approx(-90)
    assert (
        apart.bd_psnr.reason
        == "the curves do not overlap in bpp (ours from 0.01 to 0.08, theirs from 0.1 to 0.8)"
    )
    text = comparison_text(apart)
    assert "  BD-PSNR: none, the curves do not overlap in bpp" in text and "BD-rate: -90.00 %" in text


def test_a_curve_that_does_not_rise_has_no_bd_rate(bjontegaard):
    result = compare(curve("ours", RATES, [28, 30, 29.5, 31]), curve("theirs"))
    assert result.bd_rate.reason == "the psnr-rgb of ours does not rise with its rate throughout"
    assert result.bd_psnr.value is not None
    assert compare(curve("ours", [0.3], [30]), curve("theirs")).bd_rate.reason == "ours has a single point"


def test_differences_are_taken_at_equal_rate(bjontegaard):
    """Where PSNR is linear in the logarithm of the rate, interpolation is exact."""
    other = curve("theirs", RATES, [30 + 5 * np.log2(rate) for rate in RATES])
    ours = curve("ours", [0.15, 0.33, 0.8], [29.0, 28.0, 31.0])
    levels = compare(ours, other).levels
    expected = [30 + 5 * np.log2(rate) for rate in (0.15, 0.33, 0.8)]
    assert [level.mean.other for level in levels] == pytest.approx(expected)
    assert [level.mean.value for level in levels] == pytest.approx(np.array([29.0, 28.0, 31.0]) - expected)
    assert not any(level.mean.bound for level in levels)


def test_rates_beyond_the_other_curve(bjontegaard):
    points = np.array(RATES), np.array(PSNR)
    below = difference(points, 0.05, 27.0)
    assert (below.other, below.value, below.bound) == (28.0, -1.0, True)
    above = difference(points, 0.9, 40.0)
    assert (above.other, above.value) == (None, None)
    assert difference((points[0][:1], points[1][:1]), 0.1, 30.0).value == 2.0
    for rate, psnr in zip(RATES, PSNR, strict=True):
        assert difference(points, rate, psnr).value == pytest.approx(0, abs=1e-12)


def test_the_worst_picture_is_found_on_its_own_curve(bjontegaard):
    """The mean curve hides that one picture loses."""
    easy, hard = ([0.1, 0.2, 0.4], [30.0, 33.0, 36.0]), ([0.3, 0.6, 1.2], [25.0, 28.0, 31.0])
    other = curve("jpeg", images={"easy.png": easy, "hard.png": hard})
    ours = curve(
        "ours", images={"easy.png": (easy[0], [35.0, 38.0, 41.0]), "hard.png": (hard[0], [24.0, 28.5, 31.5])}
    )
    levels = compare(ours, other).levels
    assert [level.mean.value for level in levels] == pytest.approx([2.0, 2.75, 2.75])
    assert [level.worst for level in levels] == ["hard.png"] * 3
    assert [level.worst_difference.value for level in levels] == pytest.approx([-1.0, 0.5, 0.5])
    assert [(level.images_ahead, level.images) for level in levels] == [(1, 2), (2, 2), (2, 2)]
    text = comparison_text(compare(ours, other))
    assert "more PSNR than jpeg at equal bpp: at 3 of 3 qualities" in text
    assert "hard.png    -1.000    1/2" in text


def test_pictures_with_other_pixels_are_not_compared(bjontegaard):
    ours = curve("ours", images={"a.png": (RATES, PSNR), "b.png": (RATES, PSNR)})
    theirs = curve("theirs", images={"a.png": (RATES, PSNR), "c.png": (RATES, PSNR)})
    theirs = Curve(
        "theirs",
        "",
        theirs.results,
        (ImageResult("a.png", 4, 3, "another", theirs.per_image[0].columns), theirs.per_image[1]),
    )
    result = compare(ours, theirs)
    assert all(level.worst is None for level in result.levels)
    assert result.notices == (
        "a.png is another image in theirs (1 such)",
        "ours and theirs are means over different images: 2 and 2, 1 of one name",
    )
    alone = compare(ours, curve("published"))
    assert alone.notices == (
        "published does not say which images it was measured on, nor each one's numbers",
    )


def test_equal_pictures_need_no_notice(bjontegaard):
    both = [curve(name, images={"a.png": (RATES, PSNR)}) for name in ("ours", "theirs")]
    assert compare(*both).notices == ()


def published(tmp_path, results, **more):
    path = tmp_path / "published.json"
    path.write_text(json.dumps({"name": "BPG", "description": "by others", "results": results, **more}))
    return path


@pytest.mark.parametrize(
    "psnr, ms_ssim", [("psnr", "ms-ssim"), ("psnr-rgb", "ms-ssim-rgb"), ("psnr", "msssim")]
)
def test_files_that_compressai_published_are_read(tmp_path, psnr, ms_ssim):
    """All three generations of key names, and rates in any order."""
    results = {
        psnr: PSNR[::-1],
        ms_ssim: [0.99, 0.97, 0.94, 0.9],
        "bpp": RATES[::-1],
        "encoding_time": [0.1] * 4,
        "q": [1, 2, 3, 4],
    }
    (found,) = read_curves(published(tmp_path, results, meta={"code": "https://..."}))
    assert (found.name, found.description, found.per_image) == ("BPG", "by others", ())
    for metric, values in (("psnr-rgb", PSNR), ("ms-ssim-rgb", [0.9, 0.94, 0.97, 0.99])):
        rates, found_values = found.points(metric)
        assert rates.tolist() == RATES and found_values.tolist() == values


def test_a_curve_survives_its_json(tmp_path):
    images = {"a.png": (RATES, [*PSNR[:3], None]), "b.png": (RATES, PSNR)}
    before = curve(images=images)
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(before.to_dict()))
    assert read_curves(path) == [before]
    path.write_text(json.dumps({"command": "rd", "curves": [before.to_dict(), before.to_dict()]}))
    assert read_curves(path) == [before, before]


def test_a_mean_is_over_the_pictures_that_have_the_number():
    results = [
        ImageResult(str(n), 1, 1, "", {"bpp": [0.1 * n], "psnr-rgb": [value]})
        for n, value in ((1, 30.0), (2, None), (6, 33.0))
    ]
    assert mean_columns(results) == {"bpp": [pytest.approx(0.3)], "psnr-rgb": [31.5]}


IMAGE = {"image": "a", "width": 1, "height": 1, "sha256": "", "bpp": [1, 2]}


@pytest.mark.parametrize(
    "document, message",
    [
        ([], "holds no rate-distortion results"),
        ({"results": [1]}, "holds no rate-distortion results"),
        ({"results": {"psnr": [1]}}, "has no list of numbers under bpp"),
        ({"results": {"bpp": [0.1, 0.2], "psnr": [30]}}, "psnr-rgb has 1 entries, bpp 2"),
        ({"results": {"bpp": [0.1, 0], "psnr": [30, 31]}}, "bpp holds entries that are not positive"),
        ({"results": {"bpp": [0.1]}, "per_image": {}}, "per_image is not a list"),
        ({"results": {"bpp": [0.1]}, "per_image": [{"image": "a"}]}, "lacks one of image, width, height"),
        ({"results": {"bpp": [0.1]}, "per_image": [IMAGE]}, "'a': has 2 qualities, results has 1"),
    ],
)
def test_a_file_of_another_kind_is_one_error(tmp_path, document, message):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        read_curves(path)
    assert str(error.value).startswith(f"{path}: ") and message in str(error.value)


def test_a_file_that_is_not_json_is_one_error(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("[1")
    with pytest.raises(DataError, match="bad.json: is not JSON"):
        read_curves(path)


def test_results_without_psnr_are_one_error(tmp_path):
    (found,) = read_curves(published(tmp_path, {"bpp": RATES, "ms-ssim-db-rgb": PSNR}))
    with pytest.raises(DataError, match="BPG: the results hold no psnr-rgb; they have bpp, ms-ssim-db-rgb"):
        found.points("psnr-rgb")


def test_a_curve_to_compare_with_is_checked_before_anything_is_measured(tmp_path):
    (found,) = read_curves(published(tmp_path, {"bpp": RATES, "ms-ssim-db-rgb": PSNR}))
    reports = []
    with pytest.raises(DataError, match="BPG: the results hold no psnr-rgb"):
        rate_distortion(
            [np.zeros((8, 8, 3), np.uint8)], {"jpeg": [50]}, against=[found], progress=reports.append
        )
    assert reports == []
