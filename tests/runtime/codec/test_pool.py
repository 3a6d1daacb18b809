"""Whose file is it? Bundles are found by fingerprint, and ladders by the quality asked for."""

import json
import shutil

import numpy as np
import pytest

from polc_runtime import BundleError, Codec, UsageError
from polc_runtime.bundle import Ladder, find_bundle
from polc_runtime.bundle.ladder import ladder_json
from polc_runtime.codec.pool import CodecPool
from polc_runtime.errors import WrongModelError

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def files(tiny_bundle):
    """A file of the packaged model, and one of another."""
    with Codec.load("nano", threads=1) as nano, Codec.load(tiny_bundle, threads=1) as tiny:
        return nano.compress(PIXELS, 2), tiny.compress(PIXELS, 2)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("POLC_BUNDLE", raising=False)
    monkeypatch.delenv("POLC_BUNDLES", raising=False)


@pytest.fixture
def ladder(tiny_bundle, tmp_path):
    """A ladder of two models: their qualities are names, and decide nothing."""
    folder = tmp_path / "ladder"
    for name, bundle in (("q1", find_bundle("nano")), ("q3", tiny_bundle)):
        shutil.copytree(bundle, folder / name)
    (folder / "ladder.json").write_text(ladder_json([(1, "q1"), (3, "q3")]))
    return folder


def test_a_file_of_a_listed_folder_is_decoded_beside_the_packaged_ones(files, tiny_bundle, monkeypatch):
    monkeypatch.setenv("POLC_BUNDLES", f"/nowhere:{tiny_bundle.parent}")
    with CodecPool() as codecs:
        for data, bundle in zip(files, ("nano", tiny_bundle), strict=True):
            with Codec.load(bundle) as codec:
                np.testing.assert_array_equal(codecs.decompress(data), codec.decompress(data))
        assert codecs.to_decode(files[1]) is codecs.to_decode(files[1]), "opened once"


def test_a_listed_folder_may_be_a_bundle_or_a_ladder_itself(files, tiny_bundle, ladder, monkeypatch):
    for place in (tiny_bundle, ladder):
        monkeypatch.setenv("POLC_BUNDLES", str(place))
        with CodecPool() as codecs:
            assert codecs.decompress(files[1]).shape == PIXELS.shape


def test_a_file_of_an_unknown_model_says_which_fingerprint_nobody_has(files, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text("{")
    monkeypatch.setenv("POLC_BUNDLES", str(tmp_path))
    fingerprint = files[1][5:13].hex()
    with (
        CodecPool() as codecs,
        pytest.raises(WrongModelError, match=rf"{fingerprint}.*2 were looked at") as e,
    ):
        codecs.decompress(files[1])
    assert "1 of them cannot be read" in str(e.value) and e.value.kind == "wrong_model"


def test_a_bundle_that_is_named_decodes_its_own_files_alone(files, tiny_bundle, monkeypatch):
    monkeypatch.setenv("POLC_BUNDLES", str(tiny_bundle.parent))
    with CodecPool("nano") as codecs, pytest.raises(WrongModelError, match="made with another model"):
        codecs.decompress(files[1])


def test_a_ladder_encodes_with_the_bundle_of_a_quality_and_decodes_all_of_its_files(files, ladder):
    with CodecPool(ladder) as codecs:
        assert codecs.qualities == (1, 3)
        made = codecs.compress(PIXELS, 3)
        assert made[5:13] == files[1][5:13], "made by the second bundle"
        for data in (*files, made):
            assert codecs.decompress(data).shape == PIXELS.shape
        with pytest.raises(UsageError, match="no bundle of quality 2; there are 1, 3"):
            codecs.compress(PIXELS, 2)


def test_a_ladder_is_not_a_bundle_and_says_so(ladder):
    with pytest.raises(BundleError, match="is a ladder of bundles, where one bundle is needed"):
        Codec.load(ladder)


LIST = {"format": [1, 0], "bundles": [{"quality": 1, "path": "a"}, {"quality": 2.5, "path": "b"}]}


def test_a_ladder_is_read(tmp_path):
    (tmp_path / "ladder.json").write_text(json.dumps({**LIST, "format": [1, 9], "later": 1}))
    found = Ladder.load(tmp_path)
    assert found.qualities == (1, 2.5) and found.rung(2.5).path == tmp_path / "b"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("[", "not JSON"),
        ({**LIST, "format": [2]}, "has format .2., this runtime reads up to 1"),
        ({**LIST, "format": "1"}, "format is not usable"),
        ({**LIST, "bundles": []}, "bundles is not a list of 1 to 256"),
        ({**LIST, "bundles": LIST["bundles"][::-1]}, "of rising quality"),
        ({**LIST, "bundles": [{"quality": 1, "path": "../a"}]}, "expected the name of a folder"),
        ({**LIST, "bundles": [{"quality": 1, "path": ".."}]}, "expected the name of a folder"),
        ({**LIST, "bundles": [{"quality": "1", "path": "a"}]}, "quality is not a number"),
    ],
)
def test_a_hostile_ladder_is_one_line(tmp_path, document, said):
    (tmp_path / "ladder.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(BundleError, match=said) as caught:
        Ladder.load(tmp_path)
    assert "\n" not in str(caught.value)
