"""Measuring codecs on images: real files, real decoding, means, and images that are left out."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polc_runtime.bench import rate_distortion
from polc_runtime.bench.quality.codecs import PillowCoder, resolve_qualities
from polc_runtime.errors import ImageError, UsageError
from polc_runtime.files.inputs import Source
from polc_runtime.pictures.listing import LeftOut, NothingMeasured, find_images, name_images


def picture(height, width, seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def folder(tmp_path):
    for seed, (height, width) in enumerate([(40, 64), (30, 30), (17, 90)]):
        Image.fromarray(picture(height, width, seed)).save(tmp_path / f"{seed}.png")
    return tmp_path


def measure(images, plan, **more):
    return rate_distortion(images, plan, ("psnr",), **more)


def decoded_by_pillow(pixels, quality, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue(), np.asarray(Image.open(stream).convert("RGB"), np.float64)


def test_jpeg_is_measured_on_its_real_files(folder):
    coder = PillowCoder("jpeg")
    (curve,) = measure(folder, {coder: (10.0, 80.0)}).measured
    rates, distortions = np.zeros((3, 2)), np.zeros((3, 2))
    for row, (height, width) in enumerate([(40, 64), (30, 30), (17, 90)]):
        pixels = picture(height, width, row)
        for column, quality in enumerate((10, 80)):
            data, back = decoded_by_pillow(pixels, quality, subsampling="4:2:0", optimize=True)
            rates[row, column] = 8 * len(data) / (height * width)
            distortions[row, column] = 20 * np.log10(255 / np.sqrt(np.mean((pixels - back) ** 2)))
    assert curve.results["quality"] == [10, 80]
    assert curve.results["bpp"] == pytest.approx(rates.mean(0))
    assert curve.results["psnr-rgb"] == pytest.approx(distortions.mean(0))
    for row, result in enumerate(curve.per_image):
        assert result.image == f"{row}.png"
        assert result.columns["psnr-rgb"] == pytest.approx(distortions[row])
        assert result.columns["bpp"] == pytest.approx(rates[row])
        assert min(result.columns["encoding_time"] + result.columns["decoding_time"]) > 0
    first = curve.per_image[0]
    assert (first.width, first.height) == (64, 40)
    assert first.sha256 == hashlib.sha256(picture(40, 64, 0).tobytes()).hexdigest()


def test_jpeg_files_are_baseline_with_halved_chroma():
    data = PillowCoder("jpeg").encode(picture(40, 64, 0), 50)
    image = Image.open(io.BytesIO(data))
    assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
    assert "progressive" not in image.info and b"\xff\xc0" in data
    assert len(data) < len(decoded_by_pillow(picture(40, 64, 0), 50, subsampling="4:2:0")[0])


def test_webp_is_lossy_and_decodes_to_the_picture():
    coder = PillowCoder("webp")
    pixels = picture(40, 64, 0)
    small, large = coder.encode(pixels, 10), coder.encode(pixels, 90)
    assert len(small) < len(large) and b"VP8 " in small
    assert coder.decode(large).shape == (40, 64, 3)
    assert np.abs(coder.decode(large).astype(int) - pixels).mean() < 5
    assert "WebP" in coder.description and coder.facts()["format"] == "WEBP"


def test_a_picture_too_large_for_a_format_is_left_out_by_that_codec_alone(tmp_path):
    Image.new("RGB", (16400, 1), "red").save(tmp_path / "a.png")
    Image.fromarray(picture(20, 20, 0)).save(tmp_path / "b.png")
    plan = {PillowCoder(name): (50.0,) for name in ("webp", "jpeg")}
    found = measure(tmp_path, plan)
    webp, jpeg = found.measured
    assert [result.image for result in webp.per_image] == ["b.png"]
    assert [result.image for result in jpeg.per_image] == ["a.png", "b.png"]
    (left_out,) = found.left_out
    assert left_out.codec == "webp" and left_out.image.endswith("a.png")
    assert "cannot be written as WEBP" in left_out.error


def test_a_picture_that_cannot_be_read_is_left_out_once(folder):
    (folder / "1.png").write_bytes(b"no picture")
    found = measure(folder, {"webp": (5.0, 50.0), "jpeg": (5.0, 50.0)})
    assert [[result.image for result in curve.per_image] for curve in found.measured] == [
        ["0.png", "2.png"]
    ] * 2
    error = "not an image of a kind that can be read"
    assert found.left_out == (LeftOut(str(folder / "1.png"), error),)


def test_a_codec_that_fails_at_one_quality_gives_nothing_of_that_picture(folder):
    class Failing(PillowCoder):
        def encode(self, pixels, quality):
            if quality > 20 and pixels.shape[0] == 30:
                raise ImageError("too fine for me")
            return super().encode(pixels, quality)

    found = measure(folder, {Failing("jpeg"): (10.0, 30.0, 50.0)})
    (curve,) = found.measured
    assert [result.image for result in curve.per_image] == ["0.png", "2.png"]
    assert [len(column) for column in curve.results.values()] == [3] * len(curve.results)
    assert found.left_out == (LeftOut(str(folder / "1.png"), "too fine for me", "jpeg"),)


def test_a_codec_runs_once_before_the_clock(folder):
    calls = []

    class Counting(PillowCoder):
        def encode(self, pixels, quality):
            calls.append((pixels.shape[0], quality))
            return super().encode(pixels, quality)

    measure(folder, {Counting("jpeg"): (10.0, 80.0)})
    assert calls == [(40, 10), (40, 10), (40, 80), (30, 10), (30, 80), (17, 10), (17, 80)]


def test_notices_of_images_are_reported_once(tmp_path):
    Image.new("RGBA", (20, 20), (255, 0, 0, 100)).save(tmp_path / "a.png")
    reports = []
    measure(tmp_path, {"jpeg": (10.0, 80.0), "webp": (10.0,)}, progress=reports.append)
    notices = [notice for report in reports for notice in report.notices]
    assert notices == [f"{tmp_path / 'a.png'}: transparent parts are laid on white"]


def test_progress_ends_at_the_total_whatever_fails(folder):
    class Failing(PillowCoder):
        def encode(self, pixels, quality):
            if quality > 20 and pixels.shape[0] == 30:
                raise ImageError("too fine for me")
            return super().encode(pixels, quality)

    (folder / "2.png").write_bytes(b"no picture")
    reports = []
    measure(folder, {"jpeg": (10.0, 80.0), Failing("webp"): (10.0, 30.0, 50.0)}, progress=reports.append)
    assert {report.total for report in reports} == {15} and reports[-1].done == 15
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert f"{folder / '0.png'}: jpeg 80: " in "".join(report.message for report in reports)


def test_arrays_are_measured_like_their_files(folder):
    pixels = [picture(40, 64, 0), picture(30, 30, 1), picture(17, 90, 2)]
    (of_files,), (of_arrays,) = (measure(each, {"jpeg": (50.0,)}).measured for each in (folder, pixels))
    assert [result.image for result in of_arrays.per_image] == ["image 0", "image 1", "image 2"]
    for key in ("quality", "bpp", "psnr-rgb"):
        assert of_arrays.results[key] == of_files.results[key]


def test_where_nothing_can_be_measured_the_error_lists_the_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(
        NothingMeasured, match=r"no image could be measured, such as .*a.png: not an image"
    ) as e:
        measure(tmp_path, {"jpeg": None})
    assert [each.image for each in e.value.left_out] == [str(tmp_path / "a.png")]


def test_equal_pictures_have_no_psnr_but_a_reason(tmp_path):
    Image.new("RGB", (20, 20), "black").save(tmp_path / "a.png")
    Image.fromarray(picture(20, 20, 0)).save(tmp_path / "b.png")
    (curve,) = measure(tmp_path, {"jpeg": (90.0,)}).measured
    black, other = curve.per_image
    assert black.columns["psnr-rgb"] == [None]
    assert black.reasons == {"psnr-rgb": "the images are equal, so there is no finite PSNR"}
    assert curve.results["psnr-rgb"] == other.columns["psnr-rgb"]
    assert curve.to_dict()["per_image"][0]["reasons"] == black.reasons


def test_images_of_one_name_are_called_by_their_paths(folder):
    sources = [Source(folder / "0.png", Path("x.png")), Source(folder / "1.png", Path("x.png"))]
    assert [item.name for item in name_images(sources)] == [str(folder / "0.png"), str(folder / "1.png")]
    assert [item.name for item in name_images(sources[:1])] == ["x.png"]


def test_images_are_taken_once_and_in_order(folder):
    array = picture(4, 4, 0)
    found = find_images([folder / "1.png", array, folder, str(folder / "1.png")])
    assert [item.name for item in found] == ["1.png", "image 1", "0.png", "2.png"]
    assert found[1].read().pixels is array


def test_qualities_are_resolved():
    coder = PillowCoder("jpeg")
    assert resolve_qualities(coder, None)[:6] == (1, 2, 3, 4, 5, 10)
    assert resolve_qualities(coder, (80.2, 5, 80)) == (5, 80)
    with pytest.raises(UsageError, match="jpeg: quality must lie between 1 and 100, got 101"):
        resolve_qualities(coder, (101,))
