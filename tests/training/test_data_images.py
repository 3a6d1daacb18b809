"""Photos of stage 1: which files are found, and what patches are cut from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from shared_data import SHARED
from torch import Generator

from polc_runtime.errors import DataError, ImageError
from polc_training.data.images import ImageFolder
from polc_training.data.loader import Loading, make_loader

PHOTOS = SHARED / "data/photos"


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """An image whose pixels tell where they come from: red is the row, green the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)


def save(path: Path, pixels: NDArray[np.uint8]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def patch(data: ImageFolder, index: int = 0, seed: int = 0) -> NDArray[np.int64]:
    """A sample as whole numbers [H,W,3], 0..255."""
    (tensor,) = data.sample(index, Generator().manual_seed(seed))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    return (255 * tensor.permute(1, 2, 0)).round().long().numpy()


def test_images_are_found_in_sub_folders_of_several_folders(tmp_path: Path) -> None:
    wanted = [save(tmp_path / name, ramp(4, 4)) for name in ("a/b/2.png", "a/x.PNG", "c/1.png")]
    (tmp_path / "a/notes.txt").write_text("no image")
    save(tmp_path / "a/.hidden.png", ramp(4, 4))
    data = ImageFolder([tmp_path / "a", str(tmp_path / "c")], 4)
    assert sorted(data.files) == sorted(wanted)
    assert len(data) == 3


def test_a_split_is_its_sub_folder_where_there_is_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "split" / split / "1.png", ramp(4, 4))
    save(tmp_path / "flat/1.png", ramp(4, 4))
    assert ImageFolder(tmp_path / "split", 4, "train").files == [tmp_path / "split/train/1.png"]
    assert ImageFolder(tmp_path / "split", 4, "val").files == [tmp_path / "split/test/1.png"]
    assert ImageFolder(tmp_path / "flat", 4, "train").files == [tmp_path / "flat/1.png"]
    assert len(ImageFolder(tmp_path / "split", 4)) == 2
    with pytest.raises(DataError, match="no sub-folder val or test"):
        ImageFolder(tmp_path / "flat", 4, "val")


def test_random_patches_are_true_cuts_from_everywhere_mirrored_both_ways(tmp_path: Path) -> None:
    save(tmp_path / "1.png", ramp(12, 10))
    data, seen = ImageFolder(tmp_path, 8), set()
    for seed in range(600):
        cut = patch(data, seed=seed)
        rows, columns = cut[:, 0, 0], cut[0, :, 1]
        assert (cut[..., 0] == rows[:, None]).all()
        assert (cut[..., 1] == columns).all()
        steps = rows[1] - rows[0], columns[1] - columns[0]
        assert (np.diff(rows) == steps[0]).all()
        assert (np.diff(columns) == steps[1]).all()
        seen.add((rows.min(), columns.min(), *steps))
    assert seen == {(r, c, dr, dc) for r in range(5) for c in range(3) for dr in (1, -1) for dc in (1, -1)}


@pytest.mark.parametrize("size", [(5, 20), (20, 3), (2, 2), (1, 1)])
def test_smaller_images_are_padded_by_reflection(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "1.png", ramp(*size))
    data = ImageFolder(tmp_path, 8)

    def reflected(start: int, length: int) -> list[int]:
        period = max(2 * (length - 1), 1)
        return [min(i % period, period - i % period) for i in range(start, start + 8)]

    for seed in range(20):
        cut = patch(data, seed=seed)
        for axis, length in enumerate(size):
            line = (cut[:, 0, 0] if axis == 0 else cut[0, :, 1]).tolist()
            assert any(reflected(start, length) in (line, line[::-1]) for start in range(-8, length))


def test_pictures_of_any_kind_are_read_as_the_codec_reads_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp(4, 4)).save(tmp_path / "1.png", exif=exif)
    Image.fromarray(np.full((4, 4), 257 * 9, np.uint16)).save(tmp_path / "2.png")
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "3.png")
    data = ImageFolder(tmp_path, 4)
    turned = np.rot90(ramp(4, 4), -1)
    mirrored = [turned[::rows, ::columns] for rows in (1, -1) for columns in (1, -1)]
    assert any((patch(data, 0) == each).all() for each in mirrored)
    assert (patch(data, 1) == 9).all()
    assert (patch(data, 2) == 255).all()


def test_an_unreadable_image_is_skipped_and_named(tmp_path: Path) -> None:
    save(tmp_path / "1.png", ramp(8, 8))
    broken = tmp_path / "2.png"
    broken.write_bytes((tmp_path / "1.png").read_bytes()[:45])
    data, said = ImageFolder(tmp_path, 8), list[str]()
    with pytest.raises(ImageError):
        data.sample(1, Generator())
    (batch,) = make_loader(data, Loading(2), report=said.append)
    assert batch[0].shape == (2, 3, 8, 8)
    (line,) = said
    assert line.startswith(str(broken))
    assert "\n" not in line


def test_no_readable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    loader = make_loader(ImageFolder(tmp_path, 8), Loading(1), report=lambda _: None)
    with pytest.raises(DataError, match="none of the 1 samples can be read"):
        list(loader)


def test_folders_without_images_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image files"):
        ImageFolder(tmp_path / "empty", 8)
    with pytest.raises(DataError, match="is not a folder"):
        ImageFolder(tmp_path / "missing", 8)
    with pytest.raises(DataError, match="no folder of images was named"):
        ImageFolder([], 8)


def test_a_patch_has_a_positive_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patch >= 1, got 0"):
        ImageFolder(tmp_path, 0)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no shared photos (set POLC_SHARED)")
def test_real_photos_load_the_same_with_and_without_workers() -> None:
    data = ImageFolder(PHOTOS, 128, "train")
    data.files = data.files[:32]
    here, there = (list(make_loader(data, Loading(8, seed=3, workers=workers))) for workers in (0, 2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(here, there, strict=True))
    assert here[0][0].shape == (8, 3, 128, 128)
    assert 0.2 < torch.stack([batch[0] for batch in here]).mean() < 0.7
