"""polc-nano, the trained model that comes with the package: what its card claims, on real files."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.bundle import Bundle
from polc_runtime.pictures.images import read_image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nano():
    with Codec.load("nano", threads=1) as codec:
        yield codec


def photo():
    cbook = pytest.importorskip("matplotlib.cbook")
    return read_image(Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).pixels[:384, :448]


def psnr(a, b):
    return 10 * math.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def jpeg_of_size(pixels, size):
    """PSNR of the best JPEG (4:2:0, optimised) of at most `size` bytes; of the smallest where none is."""
    best = None
    for quality in range(1, 96):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
        if best is not None and len(stream.getvalue()) > size:
            break
        best = psnr(pixels, np.asarray(Image.open(stream)))
    return best


def test_the_bundle_and_the_checkpoint_are_one_model():
    polc = pytest.importorskip("polc")
    checkpoint = polc.load_checkpoint(REPOSITORY / "models/polc-nano/polc-nano.safetensors")
    manifest = Bundle.load("nano").manifest
    assert polc.codec_id(checkpoint.codec) == manifest.codec_id
    assert {task.name: task.classes for task in manifest.tasks} == checkpoint.classes


def test_it_is_trained_for_every_level(nano):
    pixels = photo()
    files = [nano.compress(pixels, quality) for quality in (1, 4.5, 8)]
    values = [psnr(pixels, nano.decompress(data)) for data in files]
    assert sorted(map(len, files)) == [len(data) for data in files] and values == sorted(values)
    assert values[0] > 25
    for data, value in zip(files, values, strict=True):
        assert value > jpeg_of_size(pixels, len(data))


def test_tasks_predict_from_the_bitstream(nano):
    data = nano.compress(photo(), 4)
    assert nano.infer(data, "cifar10").shape == (10,)
    assert nano.infer(data, "camvid").shape == (11, 384, 448)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02", "08", "13"])
def test_on_kodak_rate_and_quality_rise_and_jpeg_is_beaten_at_every_level(nano, kodak, name):
    """The images that the card names as the worst."""
    pixels = read_image(kodak / f"{name}.png").pixels
    files = [nano.compress(pixels, quality) for quality in range(1, 9)]
    values = [psnr(pixels, nano.decompress(data)) for data in files]
    assert all(len(a) < len(b) for a, b in zip(files, files[1:], strict=False))
    assert all(a < b for a, b in zip(values, values[1:], strict=False))
    for data, value in zip(files, values, strict=True):
        assert value > jpeg_of_size(pixels, len(data))
