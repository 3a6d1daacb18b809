"""Images with label maps: how they are matched and read, and that both are always changed alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from shared_data import SHARED
from torch import Generator, Tensor
from torchvision.transforms import v2

from polc_runtime.datasets import paired_folders, read_labels
from polc_runtime.errors import DataError, PolcError
from polc_training.data.loader import Loading, make_loader
from polc_training.data.segmentation import (
    RandomView,
    SegmentationImages,
    label_map,
    listed_pairs,
    resized,
    whole_view,
)

CAMVID = SHARED / "data/camvid"
BLOCK = 16


def blocks(height: int = 96, width: int = 128) -> tuple[Tensor, Tensor]:
    """A picture of large one-coloured blocks whose colour tells their label: red = 0.1 * label."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    labels = (rows // BLOCK + columns // BLOCK * 3) % 8
    return torch.stack([labels * 0.1, labels * 0.0, labels * 0.0]).float(), labels


def save(folder: Path, name: str, labels: NDArray[np.generic], mode: str | None = None) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    picture = np.repeat(labels[..., None], 3, -1).astype(np.uint8)
    Image.fromarray(picture).save(folder / "images" / f"{name}.bmp")
    mask = Image.fromarray(labels)
    (mask.convert(mode) if mode else mask).save(folder / "masks" / f"{name}.png")


def grey(*values: int) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


def agreement(image: Tensor, labels: Tensor) -> tuple[float, float]:
    """The part of the pixels inside whose colour fits the label, and of those well outside the mean's."""
    outside = labels == 255
    mean = torch.tensor((0.485, 0.456, 0.406))[:, None]
    fits = (image[0] - labels * 0.1).abs() < 0.02
    beyond = F.max_pool2d((~outside).float()[None], 3, 1, 1)[0] == 0
    filled = (image[:, beyond] - mean).abs().amax(0) < 1e-3
    return fits[~outside].float().mean().item(), filled.float().mean().item()


def test_images_and_label_maps_are_matched_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        save(tmp_path / "train", name, grey(1, 2))
    wanted = [(tmp_path / f"train/images/{n}.bmp", tmp_path / f"train/masks/{n}.png") for n in ("a", "b")]
    assert paired_folders(tmp_path, "train") == wanted
    assert paired_folders(tmp_path / "train") == wanted
    (tmp_path / "train/masks/b.png").unlink()
    with pytest.raises(DataError, match=r"no label map for 1 of the images, such as .*b\.bmp"):
        paired_folders(tmp_path / "train")


def test_lists_name_an_image_and_a_label_map_a_line(tmp_path: Path) -> None:
    listing = tmp_path / "training.txt"
    listing.write_text("i/1.jpg m/1.png\n\ni/2.jpg m/2.png\n")
    assert listed_pairs(listing, "/data")[1] == (Path("/data/i/2.jpg"), Path("/data/m/2.png"))
    assert listed_pairs(listing)[0] == (tmp_path / "i/1.jpg", tmp_path / "m/1.png")
    listing.write_text("i/1.jpg m/1.png\ni/2.jpg\n")
    with pytest.raises(DataError, match=r"training\.txt, line 2: expected an image and a label map"):
        listed_pairs(listing)
    listing.write_text("\n")
    with pytest.raises(DataError, match="lists no images"):
        listed_pairs(listing)
    with pytest.raises(DataError, match="cannot be read"):
        listed_pairs(tmp_path / "missing.txt")


def test_labels_of_every_kind_of_file_are_read_as_they_stand(tmp_path: Path) -> None:
    labels = np.array([[0, 3, 200], [7, 1, 255]], np.uint8)
    save(tmp_path, "grey", labels)
    save(tmp_path, "deep", labels.astype(np.uint16) * 200)
    palette = Image.fromarray(labels)
    palette.putpalette(bytes(range(256)) * 3)
    palette.save(tmp_path / "masks/palette.png")
    assert (read_labels(tmp_path / "masks/grey.png") == labels).all()
    assert (read_labels(tmp_path / "masks/palette.png") == labels).all()
    assert (read_labels(tmp_path / "masks/deep.png") == labels.astype(int) * 200).all()


def test_a_picture_in_colour_or_no_picture_is_no_label_map(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="one channel, got pixels of mode RGB"):
        read_labels(tmp_path / "1.png")
    with pytest.raises(DataError, match="cannot be read as a label map"):
        read_labels(tmp_path / "2.png")


def test_labels_are_mapped_and_those_of_no_class_refused(tmp_path: Path) -> None:
    save(tmp_path, "1", grey(0, 10, 11, 255))
    pairs = paired_folders(tmp_path)
    _, labels = SegmentationImages(pairs, whole_view, 11, label_map(11, [11])).sample(0, Generator())
    assert labels[0, :4].tolist() == [0, 10, 255, 255]
    for classes, ignored, expected in [(150, [], [255, 9, 10, 255]), (11, [10], [255, 255, 10, 255])]:
        remap = label_map(classes, ignored, reduce_zero_label=True)
        _, labels = SegmentationImages(pairs, whole_view, classes, remap).sample(0, Generator())
        assert labels[0, :4].tolist() == expected
    with pytest.raises(
        DataError, match=r"1\.png: holds the label 11, but the labels of 11 classes are 0\.\.10"
    ):
        SegmentationImages(pairs, whole_view, 11).sample(0, Generator())


def test_an_image_and_a_label_map_of_other_sizes_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "1", grey(0, 1))
    Image.fromarray(grey(0, 1, 2)).save(tmp_path / "masks/1.png")
    with pytest.raises(PolcError, match=r"1\.png: has 3x1 pixels, its image 2x1"):
        SegmentationImages(paired_folders(tmp_path), whole_view, 8).sample(0, Generator())
    with pytest.raises(DataError, match="no images"):
        SegmentationImages([], whole_view, 8)


@pytest.mark.parametrize("seed", range(6))
def test_random_views_change_image_and_labels_alike(seed: int) -> None:
    view = RandomView(64)
    image, labels = view(*blocks(), Generator().manual_seed(seed))
    assert (image.shape, labels.shape) == ((3, 64, 64), (64, 64))
    assert (type(image), image.dtype, type(labels), labels.dtype) == (
        Tensor,
        torch.float32,
        Tensor,
        torch.int64,
    )
    fits, filled = agreement(image, labels)
    assert fits > 0.8  # but for the blocks' borders
    assert np.isnan(filled) or filled == 1


def test_a_view_larger_than_the_image_is_filled_with_the_mean_and_the_ignored_label() -> None:
    view = RandomView(160, scale=(1, 1))
    for seed in range(8):
        image, labels = view(*blocks(), Generator().manual_seed(seed))
        assert (labels != 255).sum() == 96 * 128
        assert agreement(image, labels) == (1, 1)


def test_factors_of_scaling_fill_their_bounds() -> None:
    rows = torch.arange(100.0)[:, None].expand(100, 60)
    labels = torch.zeros(100, 60, dtype=torch.int64)
    view, factors = RandomView(8), []
    for seed in range(200):
        image, _ = view(torch.stack([rows] * 3), labels, Generator().manual_seed(seed))
        factors.append(1 / (image[0].diff(dim=0).abs().median().item()))
    assert 0.49 < min(factors) < 0.6
    assert 1.8 < max(factors) < 2.01
    assert 1.1 < np.mean(factors) < 1.4


def test_random_views_draw_from_their_generator_alone() -> None:
    before, view = torch.get_rng_state(), RandomView(64)
    first, again, other = (view(*blocks(), Generator().manual_seed(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [(96, 128), (101, 64)])
def test_scaling_is_torchvisions(size: tuple[int, int]) -> None:
    picture, labels = blocks(*size)
    image, names = resized(picture, labels, [48 * side // min(size) for side in size])
    assert (image - v2.Resize(48, antialias=False)(picture)).abs().max() < 1e-6
    assert torch.equal(names, v2.Resize(48, v2.InterpolationMode.NEAREST)(labels[None])[0])


@pytest.mark.skipif(not CAMVID.is_dir(), reason="no shared CamVid (set POLC_SHARED)")
def test_camvid_is_read_with_void_ignored() -> None:
    train, val = (paired_folders(CAMVID, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    data = SegmentationImages(train, RandomView(128), 11, label_map(11, [11]))
    here, there = (next(iter(make_loader(data, Loading(4, seed=2, workers=workers)))) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert (here[0].shape, here[1].shape) == ((4, 3, 128, 128), (4, 128, 128))
    assert set(here[1].unique().tolist()) <= {*range(11), 255}
    whole = next(iter(make_loader(SegmentationImages(val, whole_view, 11, label_map(11, [11])), Loading(2))))
    assert (whole[0].shape, whole[1].shape) == ((2, 3, 360, 480), (2, 360, 480))
