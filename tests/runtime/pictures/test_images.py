"""Reading and writing pictures, padding, and the tensor the graphs take."""

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from polc_runtime.bitstream.plan import VERSION_1_PAD, Pad
from polc_runtime.errors import ImageError, ImageLimitError, PolcError, UsageError
from polc_runtime.limits import DEFAULT_LIMITS, Limits
from polc_runtime.pictures.images import (
    OUTPUT_FORMATS,
    encode_image,
    from_tensor,
    pad,
    read_image,
    to_tensor,
    write_image,
)

VALUES_16 = np.array([0, 127, 128, 129, 256, 257, 384, 32767, 32768, 65279, 65407, 65535], np.uint16)


def smooth(height, width, channels=3, seed=0):
    """Smooth noise: a small random picture, enlarged."""
    rng = np.random.default_rng(seed)
    planes = [
        Image.fromarray(rng.integers(0, 256, (5, 5), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for _ in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def saved(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png_16(colour_type, rows, extra=b""):
    """A 16-bit PNG written by hand, since Pillow writes none in colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    pixels = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body, chunk


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_lossless_rgb_is_read_exactly_and_without_notice(format):
    pixels = smooth(37, 50)
    read = read_image(saved(Image.fromarray(pixels), format))
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.notices == ()
    assert read.pixels.flags.c_contiguous and read.pixels.dtype == np.uint8


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "GIF"])
def test_lossy_files_are_read_as_pillow_decodes_them(format):
    data = saved(Image.fromarray(smooth(37, 50)), format)
    np.testing.assert_array_equal(
        read_image(data).pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_colour_modes_become_the_rgb_that_pillow_gives(mode):
    image = Image.fromarray(smooth(20, 30)).convert(mode)
    data = saved(image, "JPEG" if mode == "YCbCr" else "TIFF")
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    read = read_image(data)
    np.testing.assert_array_equal(read.pixels, np.asarray(expected))
    assert read.notices == ()


def test_a_path_a_stream_and_bytes_read_alike(tmp_path):
    pixels = smooth(9, 11)
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(pixels)))
    with path.open("rb") as stream:
        reads = [read_image(path), read_image(stream), read_image(path.read_bytes())]
    for read in reads:
        np.testing.assert_array_equal(read.pixels, pixels)


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).pixels[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_exif_rotation_is_applied(format, orientation):
    image = Image.fromarray(smooth(20, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, format, exif=exif)
    stored = Image.open(io.BytesIO(data))
    expected = ImageOps.exif_transpose(stored).convert("RGB")
    np.testing.assert_array_equal(read_image(data).pixels, np.asarray(expected))


def test_damaged_exif_leaves_the_picture_as_it_is_stored():
    pixels = smooth(20, 30)
    data = saved(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(read_image(data).pixels, pixels)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_laid_on_white_with_a_notice(mode):
    rgba = smooth(16, 16, 4)
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 255
    image = Image.fromarray(rgba).convert(mode)
    data = saved(image)
    straight = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(np.float64)
    alpha = straight[..., 3:] / 255
    expected = alpha * straight[..., :3] + (1 - alpha) * 255
    read = read_image(data)
    assert np.abs(read.pixels - expected).max() <= 0.5 + 1e-6
    assert read.pixels[0, 0].tolist() == [255, 255, 255]
    assert read.notices == ("transparent parts are laid on white",)


def test_an_alpha_channel_that_is_all_opaque_gives_no_notice():
    pixels = smooth(16, 16)
    image = Image.fromarray(pixels)
    image.putalpha(255)
    read = read_image(saved(image))
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.notices == ()


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_laid_on_white(mode):
    image = Image.new(mode, (4, 4), 7 if mode != "RGB" else (1, 2, 3))
    if mode == "P":
        image.putpalette([100 + i for i in range(30)])
    image.putpixel((0, 0), 9 if mode != "RGB" else (9, 9, 9))
    read = read_image(saved(image, transparency=9 if mode != "RGB" else (9, 9, 9)))
    assert read.pixels[0, 0].tolist() == [255, 255, 255]
    assert read.pixels[1, 1].tolist() != [255, 255, 255]
    assert read.notices


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_257_and_rounded(format):
    data = saved(Image.fromarray(VALUES_16[None]), format)
    expected = np.rint(VALUES_16 / 257.0)
    read = read_image(data)
    np.testing.assert_array_equal(read.pixels[0], np.repeat(expected[:, None], 3, 1))
    assert read.notices == ()


def test_every_16_bit_grey_value_is_the_nearest_8_bit_one():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    read = read_image(saved(Image.fromarray(values)))
    np.testing.assert_array_equal(read.pixels[..., 0], (values.astype(int) + 128) // 257)


def test_a_transparent_16_bit_grey_is_laid_on_white():
    rows = np.array([[1000, 40000]])
    _, chunk = png_16(0, rows)
    data, _ = png_16(0, rows, chunk(b"tRNS", struct.pack(">H", 1000)))
    assert read_image(data).pixels[0, :, 0].tolist() == [255, 156]


@pytest.mark.parametrize("colour_type, channels", [(2, 3), (6, 4)])
def test_16_bit_colour_is_cut_to_its_upper_bits_and_says_so(colour_type, channels):
    rows = np.repeat(VALUES_16[None, :, None], channels, 2)
    if channels == 4:
        rows[..., 3] = 65535
    data, _ = png_16(colour_type, rows)
    read = read_image(data)
    np.testing.assert_array_equal(read.pixels[0, :, 0], VALUES_16 >> 8)
    assert np.abs(read.pixels[0, :, 0] - VALUES_16 / 257).max() < 1
    assert read.notices == ("16-bit colour is cut to its upper 8 bits",)


def test_32_bit_grey_in_the_range_of_16_bits_is_scaled():
    data = saved(Image.fromarray(VALUES_16[None].astype(np.int32)), "TIFF")
    np.testing.assert_array_equal(read_image(data).pixels[0, :, 0], np.rint(VALUES_16 / 257.0))


def test_floating_point_grey_from_0_to_1_is_scaled():
    values = np.linspace(0, 1, 11, dtype=np.float32)[None]
    read = read_image(saved(Image.fromarray(values), "TIFF"))
    np.testing.assert_array_equal(read.pixels[0, :, 0], np.rint(values[0] * 255))


@pytest.mark.parametrize(
    "values",
    [np.array([[0, 70000]], np.int32), np.array([[-1, 5]], np.int32),
     np.array([[0.0, 255.0]], np.float32), np.array([[0.0, np.nan]], np.float32)],
)  # fmt: skip
def test_grey_outside_of_the_known_range_is_refused(values):
    with pytest.raises(ImageError, match="^image: grey values must lie in 0..(65535|1), but go from"):
        read_image(saved(Image.fromarray(values), "TIFF"))


def test_an_embedded_srgb_profile_changes_nothing():
    pixels = smooth(20, 30)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read = read_image(saved(Image.fromarray(pixels), icc_profile=profile))
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.notices == ()


def linear_profile():
    """The sRGB profile with the identity as tone curves: linear light, the same primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        name, start, size = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[start : start + 12] = b"curv\0\0\0\0\0\0\0\0"
    return bytes(data)


def test_another_profile_is_converted_to_srgb_with_a_notice():
    linear = np.arange(0, 256, 5, dtype=np.uint8)[None, :, None].repeat(3, 2)
    x = linear / 255
    expected = 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    read = read_image(saved(Image.fromarray(linear), icc_profile=linear_profile()))
    assert np.abs(read.pixels - expected).max() <= 1.5
    assert read.notices == ("colours are converted from the embedded ICC profile to sRGB",)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_damaged_profile_is_ignored(mode):
    image = Image.fromarray(smooth(20, 30)).convert(mode)
    data = saved(image, "TIFF", icc_profile=b"not a profile")
    np.testing.assert_array_equal(read_image(data).pixels, np.asarray(image.convert("RGB")))


def test_a_file_that_is_not_an_image_is_one_line_with_its_name(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("these are notes\n")
    with pytest.raises(ImageError, match=f"^{path}: not an image of a kind that can be read$"):
        read_image(path)


def test_an_empty_file_says_so(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    with pytest.raises(ImageError, match=f"^{path}: the file is empty$"):
        read_image(path)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(PolcError, match=r"none\.png: there is no such file or folder$"):
        read_image(tmp_path / "none.png")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_a_truncated_file_is_an_image_error_in_one_line(format):
    data = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), format)
    for part in (0.02, 0.3, 0.7, 0.9):
        with pytest.raises(ImageError) as caught:
            read_image(data[: int(part * len(data))], name="half")
        assert str(caught.value).startswith("half: ") and "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA", "ICO"]), st.data())
def test_a_damaged_file_is_an_image_or_an_image_error(format, data):
    content = bytearray(saved(Image.fromarray(smooth(32, 32)), format))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = read_image(bytes(content), Limits(max_pixels=10_000)).pixels
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert pixels.size <= 30_000


def test_postscript_is_refused_since_reading_it_runs_a_program():
    eps = saved(Image.fromarray(smooth(8, 8)), "EPS")
    with pytest.raises(ImageError, match="not an image of a kind that can be read"):
        read_image(eps)


def bare_png(width, height):
    """A PNG that claims a size and has no pixels."""
    return png_16(0, np.zeros((1, 1)))[0].replace(
        struct.pack(">IIBBBBB", 1, 1, 16, 0, 0, 0, 0), struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    )


def test_more_pixels_than_the_limit_are_refused_and_the_limit_named():
    data = saved(Image.new("L", (20, 10)))
    with pytest.raises(ImageLimitError, match="^image: .* the limit is 199 .*max_pixels"):
        read_image(data, Limits(max_pixels=199))
    assert read_image(data, Limits(max_pixels=200)).pixels.shape == (10, 20, 3)


@pytest.mark.parametrize(
    "width, height", [(20_000, 20_000), (2**31 - 1, 2**31 - 1), (65_535, 5_000), (70_000, 2)]
)
def test_a_decompression_bomb_is_an_image_error_that_names_the_limit(width, height, recwarn):
    data = bytearray(bare_png(width, height))
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    limit = DEFAULT_LIMITS.max_side if width > DEFAULT_LIMITS.max_side else DEFAULT_LIMITS.max_pixels
    with pytest.raises(ImageLimitError, match=str(limit)):
        read_image(bytes(data))
    assert not recwarn.list


def test_pillows_own_limit_neither_stops_nor_warns(recwarn, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_image(saved(Image.new("L", (20, 10)))).pixels.shape == (10, 20, 3)
    assert not recwarn.list


class SlowStream(io.BytesIO):
    """A seekable stream, as of a network file system, whose reads wait until they are let go."""

    def __init__(self, data):
        super().__init__(data)
        self.asked, self.let_go = threading.Event(), threading.Event()

    def read(self, size=-1):
        self.asked.set()
        assert self.let_go.wait(30)
        return super().read(size)


def test_a_slow_stream_stops_no_other_read_and_changes_no_setting_of_pillow():
    data = saved(Image.fromarray(smooth(9, 11)))
    settings = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    slow, read = SlowStream(data), []
    thread = threading.Thread(target=lambda: read.append(read_image(slow)))
    thread.start()
    try:
        assert slow.asked.wait(30)
        assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == settings
        other = threading.Thread(target=lambda: read.append(read_image(data)))
        other.start()
        other.join(30)
        assert len(read) == 1 and thread.is_alive()
    finally:
        slow.let_go.set()
        thread.join(30)
    np.testing.assert_array_equal(read[0].pixels, read[1].pixels)


@pytest.mark.parametrize("step", ["_turned", "_on_white", "_is_srgb"])
def test_a_fault_of_this_program_is_not_taken_for_a_damaged_image(monkeypatch, step):
    def fault(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(f"polc_runtime.pictures.images.{step}", fault)
    data = saved(Image.fromarray(smooth(8, 8, 4)), icc_profile=linear_profile())
    with pytest.raises(ZeroDivisionError):
        read_image(data)


def test_a_path_as_text_and_an_image_of_pillow_are_read_too(tmp_path):
    rgba = Image.fromarray(smooth(9, 11, 4))
    rgba.save(tmp_path / "a.png")
    expected = read_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        for source in (str(tmp_path / "a.png"), rgba, opened):
            read = read_image(source)
            np.testing.assert_array_equal(read.pixels, expected.pixels)
            assert read.notices == expected.notices
    with pytest.raises(ImageLimitError):
        read_image(rgba, Limits(max_pixels=98))


@pytest.mark.parametrize("source", [None, 7, ["a.png"]])
def test_what_cannot_be_an_image_is_refused_with_its_type(source):
    with pytest.raises(UsageError, match=f"^an image must be an array, .*; got {type(source).__name__}$"):
        read_image(source)


@pytest.mark.parametrize(
    "size, padded",
    [((1, 1), (192, 192)), ((192, 192), (192, 192)), ((193, 191), (256, 192)), ((512, 768), (512, 768)),
     ((1, 500), (192, 512)), ((1025, 64), (1088, 192))],
)  # fmt: skip
def test_padded_sizes_are_multiples_of_64_from_192(size, padded):
    assert VERSION_1_PAD.padded_size(*size) == padded


def test_padding_repeats_the_last_row_and_column():
    pixels = smooth(193, 70)
    padded = pad(pixels, VERSION_1_PAD)
    assert padded.shape == (256, 192, 3)
    rows, columns = np.minimum(np.arange(256), 192), np.minimum(np.arange(192), 69)
    np.testing.assert_array_equal(padded, pixels[rows][:, columns])


@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=25, deadline=None)
def test_pixels_survive_padding_and_the_tensor_exactly(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    tensor = to_tensor(pad(pixels, VERSION_1_PAD))
    assert tensor.shape == (1, 3, *VERSION_1_PAD.padded_size(height, width)) and tensor.dtype == np.float32
    np.testing.assert_array_equal(from_tensor(tensor, height, width), pixels)


def test_the_tensor_is_the_float32_quotient_by_255():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    expected = (pixels.astype(np.float64) / 255).astype(np.float32)
    np.testing.assert_array_equal(to_tensor(pixels)[0, 1], expected[..., 1])


def test_from_tensor_rounds_and_cuts_to_the_range():
    values = np.array([-0.5, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0, 3.0], np.float32)
    image = np.broadcast_to(values, (1, 3, 1, 7))
    assert from_tensor(image, 1, 7)[0, :, 0].tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize("function", [lambda pixels: pad(pixels, Pad(8, 8)), to_tensor, encode_image])
@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8),
               np.zeros((4, 4, 4), np.uint8)]
)  # fmt: skip
def test_arrays_that_are_no_image_are_refused_with_what_came(function, pixels):
    with pytest.raises(ImageError, match=rf"uint8 \[H, W, 3\]; got {pixels.dtype} \[{pixels.shape[0]}, "):
        function(pixels)


@pytest.mark.parametrize("suffix", sorted({*OUTPUT_FORMATS} - {".jpg"}))
def test_lossless_formats_read_back_exactly(tmp_path, suffix):
    pixels = smooth(21, 33)
    write_image(pixels, tmp_path / f"a{suffix.upper()}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix.upper()}").pixels, pixels)


def test_jpeg_is_close(tmp_path):
    pixels = smooth(21, 33)
    write_image(pixels, tmp_path / "a.jpeg")
    assert np.abs(read_image(tmp_path / "a.jpeg").pixels.astype(int) - pixels).mean() < 2


def test_a_stream_gets_png_unless_told_otherwise():
    stream = io.BytesIO()
    write_image(smooth(3, 3), stream)
    assert stream.getvalue().startswith(b"\x89PNG")
    stream = io.BytesIO()
    write_image(smooth(3, 3), stream, "bmp")
    assert stream.getvalue().startswith(b"BM")


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.eps"])
def test_an_unknown_suffix_lists_those_there_are(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png \.jpg \.webp \.tif \.bmp \.ppm; got"):
        write_image(smooth(3, 3), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_image_the_format_cannot_hold_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match="a 17000x1 image cannot be written as WEBP"):
        write_image(np.zeros((1, 17000, 3), np.uint8), Path(tmp_path / "a.webp"))
    assert not list(tmp_path.iterdir())
