"""Arrays, files, bytes and Pillow images give the same pixels, and the same `.polc` file."""

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec, ImageError, UsageError
from polc_runtime.errors import ImageLimitError
from polc_runtime.limits import Limits
from polc_runtime.pictures.images import read_image
from polc_runtime.pictures.sources import pixels_of

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)


@pytest.fixture
def photo(tmp_path):
    """A JPEG that is stored lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.fromarray(PIXELS).save(path, exif=exif)
    return path


def test_every_source_gives_the_pixels_that_the_file_gives(photo):
    data = photo.read_bytes()
    expected = read_image(photo).pixels
    assert expected.shape == (41, 30, 3)
    sources = [photo, str(photo), data, bytearray(data), memoryview(data), Image.open(photo), expected]
    for source in sources:
        np.testing.assert_array_equal(pixels_of(source), expected)


def test_a_file_is_the_same_whatever_its_image_came_as(photo):
    with Codec.load("nano", threads=1) as codec:
        expected = codec.compress(read_image(photo).pixels, 3)
        assert codec.compress(str(photo), 3) == codec.compress(Image.open(photo), 3) == expected


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_pillow_images_are_converted_as_their_files_are(mode, tmp_path):
    image = Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(PIXELS).convert(mode)
    path = tmp_path / "image.tif"
    image.save(path)
    np.testing.assert_array_equal(pixels_of(image), read_image(path).pixels)


def test_what_is_not_an_image_is_refused_by_kind(tmp_path):
    with pytest.raises(UsageError, match="an array, a path, the bytes of an image file or a Pillow image"):
        pixels_of(None)
    with pytest.raises(ImageError):
        pixels_of(b"not an image")
    with pytest.raises(ImageLimitError, match="too many pixels") as caught:
        pixels_of(Image.fromarray(PIXELS), Limits(max_pixels=100))
    assert caught.value.kind == "limit"


def test_what_a_file_will_show_is_known_without_its_bits(monkeypatch):
    from polc_runtime.bitstream import rans

    with Codec.load("nano", threads=1) as codec:
        expected = codec.decompress(codec.compress(PIXELS, 5))

        def refuse(*arguments):
            raise AssertionError("bits were made")

        monkeypatch.setattr(rans, "encode", refuse)
        monkeypatch.setattr(rans, "encode_streams", refuse)
        found = codec.reconstruct(PIXELS, 5)[0].transpose(1, 2, 0)[:30, :41]
        np.testing.assert_array_equal(np.rint(found * np.float32(255)), expected)
