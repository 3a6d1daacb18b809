"""The truth that predictions are compared with: labels scaled and cut as images are."""

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.bench import accuracy
from polc_runtime.bench.quality.accuracy import read_truth
from polc_runtime.bundle import CLASSIFICATION, SEGMENTATION, Preprocessing, Task
from polc_runtime.datasets import label_map
from polc_runtime.errors import DataError, ImageError
from polc_runtime.pictures.listing import NothingMeasured
from polc_runtime.pictures.preprocess import preprocess

STEPS = Preprocessing(resize=60, crop=48, interpolation="bilinear")
SCENES = Task("scenes", "pspnet50", SEGMENTATION, ("sky", "road", "car"), preprocessing=STEPS)
MEANINGS = label_map(3, (255,), void=-1)


def test_labels_are_scaled_and_cut_as_images_are(tmp_path):
    """An image whose colours are classes and its labels stay together, but for interpolation at borders."""
    indexes = np.zeros((90, 130), np.uint8)
    indexes[30:70, 20:64], indexes[50:, 70:] = 2, 2
    Image.fromarray(indexes).save(tmp_path / "mask.png")
    truth = read_truth(tmp_path / "mask.png", (90, 130), SCENES, MEANINGS)
    picture = preprocess(np.repeat(indexes[..., None] * np.uint8(100), 3, 2), STEPS)[..., 0]
    assert truth.shape == picture.shape == (48, 48)
    assert set(np.unique(truth)) == {0, 2}, "no class between two neighbours"
    inside = np.isin(picture, (0, 200))
    np.testing.assert_array_equal(truth[inside], picture[inside] // 100)
    assert inside.mean() > 0.9
    np.testing.assert_array_equal(read_truth(indexes, (90, 130), SCENES, MEANINGS), truth)


def test_ignored_pixels_stay_ignored_and_mix_with_no_class():
    labels = np.full((60, 60), 255)
    labels[:, 30:] = 2
    truth = read_truth(labels, (60, 60), SCENES, MEANINGS)
    assert set(np.unique(truth)) == {-1, 2} and (truth == -1).mean() == 0.5


def test_labels_of_another_size_are_one_error():
    with pytest.raises(ImageError, match="the labels: has 2x1 pixels, its image 3x1"):
        read_truth(np.zeros((1, 2), int), (1, 3), SCENES, MEANINGS)
    with pytest.raises(ImageError, match="the labels: has no pixels, its image 3x1"):
        read_truth(4, (1, 3), SCENES, MEANINGS)


def test_the_truth_of_a_classification_is_its_class():
    pets = Task("pets", "convnext", CLASSIFICATION, ("cat", "dog"))
    assert read_truth(1, (7, 9), pets, {}).tolist() == 1


@pytest.mark.parametrize("truth", [2, -1, "mask.png", np.zeros((7, 9), int)])
def test_a_truth_that_is_not_a_class_is_one_error(truth):
    pets = Task("pets", "convnext", CLASSIFICATION, ("cat", "dog"))
    with pytest.raises(DataError, match=r"expected the index of a class, 0\.\.1, got"):
        read_truth(truth, (7, 9), pets, {})


def test_labels_of_a_segmentation_may_be_arrays():
    image = np.add.outer(np.arange(64), np.arange(96))[..., None].repeat(3, 2).astype(np.uint8)
    with Codec.load("nano", threads=1) as codec:
        decoded = codec.decode(codec.compress(image, 4))
        labels = codec.infer_latent(decoded, "camvid").argmax(0)
        labels[:8] = 255
        found = accuracy(codec, "camvid", [(image, labels)], qualities=[4])
        with pytest.raises(NothingMeasured, match="image 0: the labels: holds the label 77"):
            accuracy(codec, "camvid", [(image, np.full((64, 96), 77))], qualities=[4])
    assert found.results["pixel-accuracy"] == [1.0] and found.results["miou"] == [1.0]
    assert found.to_dict()["ignored"] == [255]
