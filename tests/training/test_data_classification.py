"""Images in a folder a class, in folders and in zip files, and what training and evaluation make of them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from shared_data import SHARED
from torch import Generator
from torchvision.transforms import v2

from polc_runtime.bundle import Preprocessing
from polc_runtime.errors import DataError, PolcError
from polc_training.data.classification import (
    CentralCrop,
    LabelledImages,
    PaddedCrop,
    RandomResizedCrop,
    Transform,
)
from polc_training.data.loader import Loading, make_loader

CIFAR = SHARED / "data/cifar10.zip"
KEPT = CentralCrop(Preprocessing())


def noise(seed: int, height: int = 8, width: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and test images of the classes ant, bee and cat."""
    root = tmp_path / "pets"
    for number, name in enumerate(("cat/1", "ant/2", "ant/1", "bee/deep/1", "cat/0")):
        for split in ("train", "test"):
            path = root / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(number + 10 * (split == "test"))).save(path)
    return root


def zipped(folder: Path, leading: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(file, f"{leading}{file.relative_to(folder)}")
        archive.writestr(f"{leading}README.txt", "not an image")
        archive.writestr("__MACOSX/._1.png", "not an image either")
    return path


def pixels(data: LabelledImages, index: int) -> NDArray[np.uint8]:
    image, _ = data.sample(index, Generator())
    return (255 * image.permute(1, 2, 0)).round().to(torch.uint8).numpy()


def test_a_folder_below_the_split_is_a_class_and_they_are_sorted(folder: Path) -> None:
    data = LabelledImages(folder, KEPT, "train")
    assert data.classes == ("ant", "bee", "cat")
    assert data.labels == [0, 0, 1, 2, 2]
    assert [(pixels(data, i) == noise(n)).all() for i, n in enumerate((2, 1, 3, 4, 0))] == [True] * 5
    image, label = data.sample(3, Generator())
    assert (image.dtype, label.dtype, label.shape, int(label)) == (torch.float32, torch.int64, (), 2)


def test_without_a_split_the_classes_lie_in_the_folder_itself(folder: Path) -> None:
    assert LabelledImages(folder / "test", KEPT).labels == [0, 0, 1, 2, 2]
    assert LabelledImages(folder / "test", KEPT, "train").labels == [0, 0, 1, 2, 2]
    with pytest.raises(DataError, match="no sub-folder val or test"):
        LabelledImages(folder / "test", KEPT, "val")


@pytest.mark.parametrize("leading", ["", "pets/"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_zip_holds_what_its_folder_held(folder: Path, leading: str, split: str) -> None:
    packed, plain = (LabelledImages(source, KEPT, split) for source in (zipped(folder, leading), folder))
    assert (packed.classes, packed.labels) == (plain.classes, plain.labels)
    assert all((pixels(packed, i) == pixels(plain, i)).all() for i in range(len(plain)))


def test_a_zip_without_splits_is_all_training_data(folder: Path) -> None:
    path = zipped(folder / "train")
    assert LabelledImages(path, KEPT, "train").labels == [0, 0, 1, 2, 2]
    assert LabelledImages(path, KEPT).labels == [0, 0, 1, 2, 2]
    with pytest.raises(DataError, match="holds no folder val or test"):
        LabelledImages(path, KEPT, "val")


def test_workers_and_copies_open_a_zip_on_their_own(folder: Path) -> None:
    data = LabelledImages(zipped(folder), RandomResizedCrop(6), "train")
    data.sample(0, Generator())
    here, there = (list(make_loader(data, Loading(2, workers=workers))) for workers in (0, 2))
    assert all(torch.equal(x, y) for a, b in zip(here, there, strict=True) for x, y in zip(a, b, strict=True))
    copy = pickle.loads(pickle.dumps(data))
    a, b = (each.sample(1, Generator().manual_seed(3))[0] for each in (copy, data))
    assert torch.equal(a, b)


def test_a_damaged_entry_of_a_zip_is_an_error_that_names_it(folder: Path) -> None:
    path = zipped(folder)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("train/ant/2.png")
    data = bytearray(path.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(PolcError, match=r"pets\.zip: train/ant/2\.png: cannot be unpacked"):
        LabelledImages(path, KEPT, "train").sample(1, Generator())


def test_what_holds_no_classes_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "1.png")
    (tmp_path / "no.zip").write_bytes(b"PK no")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="a folder of images for each class, found none"):
        LabelledImages(tmp_path, KEPT)
    with pytest.raises(DataError, match="a folder of images for each class, found none"):
        LabelledImages(tmp_path / "empty.zip", KEPT)
    with pytest.raises(DataError, match="is no zip file"):
        LabelledImages(tmp_path / "no.zip", KEPT)
    with pytest.raises(PolcError, match="there is no such file"):
        LabelledImages(tmp_path / "missing.zip", KEPT)
    with pytest.raises(DataError, match="expected the split to be one of"):
        LabelledImages(tmp_path, KEPT, "half")


def test_random_resized_crops_cover_parts_within_the_bounds() -> None:
    rows, columns = np.mgrid[:120, :100]
    picture = np.stack([2 * rows, 2 * columns, 0 * rows], -1).astype(np.uint8)
    crop, areas, ratios, mirrored = RandomResizedCrop(20), [], [], set()
    for seed in range(300):
        cut = crop(picture, Generator().manual_seed(seed)).astype(float)
        assert cut.shape == (20, 20, 3)
        height = (cut[15, 10, 0] - cut[4, 10, 0]) / 2 / 11 * 20
        width = (cut[10, 15, 1] - cut[10, 4, 1]) / 2 / 11 * 20
        mirrored.add(width < 0)
        assert height > 0
        areas.append(height * abs(width) / 12000)
        ratios.append(abs(width) / height)
    assert mirrored == {True, False}
    assert 0.05 < min(areas) < 0.12
    assert 0.9 < max(areas) <= 1.02
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4


def test_random_resized_crops_are_scaled_both_bilinearly_and_bicubically() -> None:
    picture = noise(0, 12, 12)
    whole = RandomResizedCrop(24, scale=(1, 1), ratio=(1, 1))
    seen = {whole(picture, Generator().manual_seed(seed)).tobytes() for seed in range(40)}
    modes = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    scaled = [np.asarray(Image.fromarray(picture).resize((24, 24), mode)) for mode in modes]
    assert seen == {view.tobytes() for image in scaled for view in (image, image[:, ::-1])}


def test_thumbnails_move_by_the_padding_at_most() -> None:
    picture = noise(1)
    padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    cuts = {
        padded[t : t + 8, s : s + 8][:, ::d].tobytes() for t in range(5) for s in range(5) for d in (1, -1)
    }
    crop = PaddedCrop(8, padding=2)
    assert {crop(picture, Generator().manual_seed(seed)).tobytes() for seed in range(600)} == cuts


def test_thumbnails_are_scaled_up_bicubically() -> None:
    picture = noise(2)
    scaled = PaddedCrop(24, padding=0)(picture, Generator().manual_seed(1))
    mirrors = [
        np.asarray(Image.fromarray(p).resize((24, 24), Image.Resampling.BICUBIC))
        for p in (picture, picture[:, ::-1])
    ]
    assert any((scaled == mirror).all() for mirror in mirrors)


@pytest.mark.parametrize("size", [(40, 60), (61, 33)])
def test_evaluation_is_torchvisions_resize_and_centre_crop(size: tuple[int, int]) -> None:
    picture = noise(3, *size)
    steps = [v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(28)]
    wanted = np.asarray(v2.Compose(steps)(Image.fromarray(picture)))
    crop = CentralCrop(Preprocessing(resize=32, crop=28))
    assert (crop(picture, Generator()) == wanted).all()


@pytest.mark.parametrize("transform", [RandomResizedCrop(8), PaddedCrop(8)])
def test_augmentation_draws_from_its_generator_alone(transform: Transform) -> None:
    before = torch.get_rng_state()
    first, again, other = (transform(noise(4, 30, 30), Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert (first == again).all()
    assert not (first.shape == other.shape and (first == other).all())


@pytest.mark.skipif(not CIFAR.is_file(), reason="no shared CIFAR-10 (set POLC_SHARED)")
def test_cifar_is_read_from_its_zip() -> None:
    train, test = (LabelledImages(CIFAR, PaddedCrop(192), split) for split in ("train", "test"))
    assert train.classes == test.classes
    assert (train.classes[0], train.classes[-1], len(train.classes)) == ("airplane", "truck", 10)
    assert np.bincount(train.labels).tolist() == [len(train) // 10] * 10
    assert len(train) + len(test) == 30000
    images, labels = next(iter(make_loader(train, Loading(8))))
    assert (images.shape, labels.shape) == ((8, 3, 192, 192), (8,))
