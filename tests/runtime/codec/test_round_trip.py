"""Decoding gives bit-exactly what the bundle's synthesis makes of the encoder's own latent."""

import threading

import numpy as np
import pytest
from PIL import Image

from polc_runtime import BitstreamError, BundleError, Codec, CodecMismatchWarning, ImageError, UsageError
from polc_runtime.pictures.images import from_tensor, pad, to_tensor

QUALITIES = (1.0, 2.5, 8.0)
ODD_SIZES = ((1, 1), (1, 500), (500, 1), (191, 193), (513, 769), (192, 256))
KODAK = ("01", "05", "13", "19")


def picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def check_round_trip(codec, pixels, quality):
    data = codec.compress(pixels, quality)
    expected = from_tensor(codec.reconstruct(pixels, quality), *pixels.shape[:2])
    decoded = codec.decompress(data)
    assert decoded.shape == pixels.shape
    np.testing.assert_array_equal(decoded, expected)


@pytest.fixture(scope="module")
def codec(tiny_bundle):
    with Codec.load(tiny_bundle) as codec:
        yield codec


@pytest.fixture(scope="module")
def full_codec(official_bundle):
    with Codec.load(official_bundle) as codec:
        yield codec


@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("size", ODD_SIZES)
def test_small_model_at_any_size(codec, size, quality):
    check_round_trip(codec, picture(*size), quality)


@pytest.mark.slow
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("size", ODD_SIZES)
def test_full_size_model_at_any_size(full_codec, size, quality):
    check_round_trip(full_codec, picture(*size), quality)


@pytest.mark.slow
@pytest.mark.parametrize("quality", QUALITIES)
@pytest.mark.parametrize("name", KODAK)
def test_full_size_model_on_kodak(full_codec, kodak, name, quality):
    check_round_trip(full_codec, np.asarray(Image.open(kodak / f"{name}.png").convert("RGB")), quality)


def test_thread_count_changes_no_byte(codec, tiny_bundle):
    pixels = picture(300, 400)
    with Codec.load(tiny_bundle, threads=1) as single:
        assert single.compress(pixels, 5) == codec.compress(pixels, 5)


def test_one_codec_serves_several_threads(codec):
    pictures = [picture(200, 220, seed) for seed in range(4)]
    expected = [codec.compress(pixels, 3) for pixels in pictures]
    found = [b""] * len(pictures)

    def work(i):
        found[i] = codec.compress(codec.decompress(expected[i]) * 0 + pictures[i], 3)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_quality_is_rounded_to_its_coded_step(codec):
    pixels = picture(192, 192)
    assert codec.compress(pixels, 4 + 0.4 / 256) == codec.compress(pixels, 4)
    assert codec.compress(pixels, 4 + 0.6 / 256) != codec.compress(pixels, 4)


def test_latent_is_the_encoders(codec):
    data = codec.compress(picture(100, 300), 6)
    latent = codec.latent(data)
    assert latent.shape == (32, 12, 20) and latent.dtype == np.float32
    pixels = pad(picture(100, 300), codec.plan.pad)
    found = codec.backend.run("analysis", {"image": to_tensor(pixels), "quality": np.array([6], np.float32)})
    coded = codec.latent_coder.encode(found["y"][0], found["z"][0], 6)
    np.testing.assert_array_equal(latent, coded.y_hat)


@pytest.mark.parametrize("quality", [0.9, 8.1, float("nan"), float("inf")])
def test_quality_out_of_range_is_refused(codec, quality):
    with pytest.raises(UsageError, match="between 1 and 8"):
        codec.compress(picture(10, 10), quality)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_than_pictures_are_refused(codec, pixels):
    with pytest.raises(ImageError):
        codec.compress(pixels)


def test_another_models_file_is_refused_and_another_synthesis_warned_of(codec, tiny_bundle, tmp_path):
    import dataclasses

    from polc_runtime.bitstream.container import Container

    data = codec.compress(picture(20, 20))
    container = Container.unpack(data)

    def with_header(**fields):
        return dataclasses.replace(container, header=dataclasses.replace(container.header, **fields)).pack()

    with pytest.raises(BitstreamError, match="made with another model"):
        codec.decompress(with_header(fingerprint=b"12345678"))
    with pytest.warns(CodecMismatchWarning, match="another synthesis"):
        np.testing.assert_array_equal(codec.decompress(with_header(codec_id=b"1234")), codec.decompress(data))


def test_graph_that_fails_is_an_error_that_names_it(codec):
    with pytest.raises(BundleError, match="ONNX Runtime failed in the graph synthesis"):
        codec.backend.run(
            "synthesis", {"y_hat": np.zeros((1, 5, 12, 12), np.float32), "quality": np.ones(1, np.float32)}
        )


def test_drift_of_the_decoder_is_an_error_that_names_the_step(codec):
    """A decoder whose graphs round differently: emulated by a stream with another step's checksum."""
    import dataclasses

    from polc_runtime.bitstream.container import Container

    container = Container.unpack(codec.compress(picture(20, 20)))
    for index, named in ((0, "the hyper-latent"), (1, "coding step 0"), (9, "coding step 8")):
        sums = list(container.checksums)
        sums[index] ^= 1
        with pytest.raises(BitstreamError, match=f"{named} decodes to other symbols"):
            codec.verify(dataclasses.replace(container, checksums=tuple(sums)).pack())
