"""Predictions in results: written, read back, compared with those of an earlier run."""

import json

import numpy as np
import pytest

from polc_runtime import Bundle
from polc_runtime.bench.quality.predictions import Earlier, decode, encode, predict_class
from polc_runtime.errors import DataError


@pytest.fixture(scope="module")
def manifest():
    return Bundle.load("nano").manifest


def document(manifest, name, predictions, **changes):
    image = {"image": "a.png", "sha256": "00", "quality": [1.0, 4.0], "predictions": predictions}
    about = {"task": {"name": name}, "codec": {"codec_id": manifest.codec_id.hex()}}
    return {"command": "accuracy", **about, "per_image": [image], **changes}


@pytest.fixture
def earlier(manifest, tmp_path):
    def read(task, content):
        path = tmp_path / "earlier.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Earlier.read(path, manifest.task(task), manifest.codec_id.hex())

    return read


@pytest.mark.parametrize("shape", [(300,), (300, 1, 1), (11, 70, 33)])
def test_predictions_survive_being_written(shape):
    logits = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = decode(json.loads(json.dumps(encode(predict_class(logits)))))
    np.testing.assert_array_equal(found, logits.argmax(0))


def test_agreement_is_the_part_of_equal_classes(manifest, earlier):
    before = np.zeros((4, 5), np.uint16)
    now = before.copy()
    now[0, :3] = 7
    content = document(manifest, "camvid", {"latent": [encode(before), encode(now)]})
    found = earlier("camvid", content)
    assert found.agreement("a.png", "00", 1.0, now) == 17 / 20
    assert found.agreement("a.png", "00", 4.0, now) == 1
    found.check_compared()


def test_pytorchs_predictions_are_preferred(manifest, earlier):
    content = document(manifest, "cifar10", {"latent": [1, 2], "reference": [3, 4]})
    found = earlier("cifar10", content)
    assert found.agreement("a.png", "00", 4.0, np.array(4, np.uint16)) == 1
    assert found.agreement("a.png", "00", 4.0, np.array(2, np.uint16)) == 0


def test_other_pictures_and_qualities_are_not_compared(manifest, earlier):
    found = earlier("cifar10", document(manifest, "cifar10", {"latent": [1, 2]}))
    one = np.array(1, np.uint16)
    for other in (("b.png", "00", 1.0), ("a.png", "01", 1.0), ("a.png", "00", 2.0)):
        assert found.agreement(*other, one) is None
    with pytest.raises(DataError, match="has no picture at any of the qualities in common"):
        found.check_compared()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not JSON"),
        ([], "is no result of 'polc-bench accuracy -o'"),
        ({"command": "rd"}, "is no result of 'polc-bench accuracy -o'"),
        ({"predictions": None}, "has no predictions that can be read"),
        ({"predictions": {"pixels": [1, 2]}}, "has no predictions that can be read"),
        ({"predictions": {"latent": [1]}}, "has no predictions that can be read"),
        ({"task": {"name": "camvid"}}, "is of the task camvid and the codec"),
        ({"codec": {"codec_id": "ff" * 32}}, "and the codec ffffffff; expected cifar10 and"),
    ],
)
def test_files_of_other_shapes_are_refused(manifest, earlier, content, message):
    if isinstance(content, dict) and "command" not in content:
        predictions = content.pop("predictions", {"latent": [1, 2]})
        content = document(manifest, "cifar10", predictions, **content)
    with pytest.raises(DataError, match=message) as caught:
        earlier("cifar10", content)
    assert "\n" not in str(caught.value) and "earlier.json" in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1 << 16,
        "1",
        None,
        {"size": [2, 2], "zlib": "!"},
        {"size": [2, 2], "zlib": "AAAA"},
        {"size": [2, 2]},
        {**encode(np.zeros((300, 300), np.uint16)), "size": [2, 2]},
        {**encode(np.zeros((2, 2), np.uint16)), "size": [300, 300]},
        {**encode(np.zeros((2, 2), np.uint16)), "size": [-2, -2]},
    ],
)
def test_damaged_predictions_are_refused(manifest, earlier, value):
    found = earlier("camvid", document(manifest, "camvid", {"latent": [value, value]}))
    if value is None:
        assert found.agreement("a.png", "00", 1.0, np.zeros((2, 2), np.uint16)) is None
        return
    with pytest.raises(DataError, match="the prediction of a.png cannot be read"):
        found.agreement("a.png", "00", 1.0, np.zeros((2, 2), np.uint16))
