"""Labelled pictures: folders of classes, CSV files, masks; what is wrong with them in one line."""

import numpy as np
import pytest
from PIL import Image

from polc_runtime.bench.quality.samples import find_samples, read_mask
from polc_runtime.bundle import CLASSIFICATION, SEGMENTATION, Preprocessing, Task
from polc_runtime.errors import DataError, ImageError, UsageError
from polc_runtime.pictures.preprocess import preprocess

PETS = Task("pets", "convnext", CLASSIFICATION, ("Maine Coon", "pug", "beagle", "pug dog", "Pug Dog"))
DIGITS = Task("digits", "convnext", CLASSIFICATION, tuple(f"digit {n}" for n in range(12)))
SCENES = Task("scenes", "pspnet50", SEGMENTATION, ("sky", "road", "car"), preprocessing=Preprocessing())


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def labels(found):
    return {sample.source.place.as_posix(): sample.label for sample in found.samples}


def test_folders_are_called_as_classes(tmp_path):
    put(tmp_path, "maine_coon/a.png", "beagle/b.jpg", "beagle/deep/c.png", "pug/.hidden.png", "pug/notes.txt")
    found = find_samples(tmp_path, PETS)
    assert labels(found) == {"maine_coon/a.png": 0, "beagle/b.jpg": 2, "beagle/deep/c.png": 2}
    assert found.notices == ()


def test_folders_are_called_as_indexes(tmp_path):
    put(tmp_path, "10/a.png", "2/b.png")
    found = find_samples(tmp_path, DIGITS)
    assert labels(found) == {"10/a.png": 10, "2/b.png": 2}
    assert found.notices == (f"{tmp_path}: folder names are read as class indexes",)


def test_as_many_folders_as_classes_are_taken_in_order(tmp_path):
    put(tmp_path, *(f"n{7 * n:04}/a.png" for n in range(12)))
    found = find_samples(tmp_path, DIGITS)
    assert labels(found) == {f"n{7 * n:04}/a.png": n for n in range(12)}
    (notice,) = found.notices
    assert notice.endswith("read as classes 0 to 11 of digits: n0000 as digit 0, ...")


def test_a_folder_that_is_no_class_is_an_error(tmp_path):
    put(tmp_path, "beagle/a.png", "tiger/b.png")
    with pytest.raises(
        DataError, match=r"tiger: 'tiger' is no class of the task pets \(Maine Coon, pug, beagle"
    ):
        find_samples(tmp_path, PETS)


def test_a_name_of_two_classes_is_no_class(tmp_path):
    with pytest.raises(DataError, match="'pug_dog' is no class"):
        find_samples(put(tmp_path, "pug_dog/a.png"), PETS)


def test_pictures_outside_of_folders_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"a.png: lies in no class's folder; .* or --labels FILE.csv"):
        find_samples(put(tmp_path, "a.png", "beagle/b.png"), PETS)


@pytest.mark.parametrize("heading", ["", "file,class\n", "\ufeffFile, Class\n"])
def test_classes_from_a_csv_file(tmp_path, heading):
    put(tmp_path, "a.png", "sub/b.png")
    csv = tmp_path / "labels.csv"
    csv.write_text(f"{heading}a.png,Maine Coon\nsub/b.png, 4\n\n", encoding="utf-8")
    found = find_samples(tmp_path, PETS, csv)
    assert labels(found) == {"a.png": 0, "sub/b.png": 4}
    assert [sample.source.path for sample in found.samples] == [tmp_path / "a.png", tmp_path / "sub/b.png"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.png,tiger\n", r"line 1: 'tiger' is no class of the task pets"),
        ("a.png,pug\nb.png,5\n", r"line 2: '5' is no class of the task"),
        ("a.png,pug dog\n", r"line 1: 'pug dog' is the name of 2 classes; give its index"),
        ("a.png\n", r"line 1 is not file,class"),
        ("file,class\n", r"holds no lines of file,class"),
    ],
)
def test_a_wrong_csv_file_is_one_error(tmp_path, text, message):
    csv = tmp_path / "labels.csv"
    csv.write_text(text)
    with pytest.raises(DataError, match=message):
        find_samples(tmp_path, PETS, csv)


def test_a_folder_that_is_not_there(tmp_path):
    for task in (PETS, SCENES):
        with pytest.raises(DataError, match="absent: no such folder"):
            find_samples(tmp_path / "absent", task)
    with pytest.raises(UsageError, match="no file in this folder"):
        find_samples(tmp_path, PETS)


def test_a_limit_takes_pictures_of_all_classes(tmp_path):
    put(tmp_path, *(f"{n}/{k}.png" for n in range(10) for k in range(10)))
    found = find_samples(tmp_path, DIGITS).spread(10)
    assert [sample.label for sample in found.samples] == list(range(10))
    assert found.notices[-1] == "10 of 100 pictures, taken evenly"
    whole = find_samples(tmp_path, DIGITS)
    assert whole.spread(100) is whole and whole.spread(None) is whole
    assert len(whole.spread(7).samples) == 7


def test_masks_are_found_by_name(tmp_path):
    put(tmp_path, "images/a.jpg", "images/sub/b.png", "masks/a.png", "masks/sub/b.png", "masks/c.png")
    found = find_samples(tmp_path, SCENES)
    assert [(sample.source.place.as_posix(), sample.mask) for sample in found.samples] == [
        ("a.jpg", tmp_path / "masks/a.png"),
        ("sub/b.png", tmp_path / "masks/sub/b.png"),
    ]


def test_pictures_without_masks_are_an_error(tmp_path):
    put(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png")
    with pytest.raises(DataError, match=r"b.jpg: has no mask of its name in .*masks \(2 such\)"):
        find_samples(tmp_path, SCENES)


def test_a_segmentation_needs_two_folders_and_no_labels(tmp_path):
    with pytest.raises(DataError, match=r"has no folder masks; expected images/NAME\.\* and masks/NAME.png"):
        find_samples(put(tmp_path, "images/a.png"), SCENES)
    with pytest.raises(UsageError, match="--labels is for a classification"):
        find_samples(tmp_path, SCENES, tmp_path / "labels.csv")


def save(path, indexes, palette=False):
    image = Image.fromarray(indexes)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    image.save(path)
    return path


@pytest.mark.parametrize("palette", [False, True])
def test_a_mask_holds_classes_and_ignored_pixels(tmp_path, palette):
    indexes = np.array([[0, 1, 2], [255, 254, 0]], np.uint8)
    path = save(tmp_path / "mask.png", indexes, palette)
    truth = read_mask(path, (2, 3), SCENES, (254, 255))
    assert truth.tolist() == [[0, 1, 2], [-1, -1, 0]]
    assert read_mask(path, (2, 3), SCENES, (0, 254, 255)).tolist() == [[-1, 1, 2], [-1, -1, -1]]


def test_a_mask_may_count_classes_from_one(tmp_path):
    path = save(tmp_path / "mask.png", np.array([[0, 1, 2, 3, 255]], np.uint8))
    assert read_mask(path, (1, 5), SCENES, (255,), first=1).tolist() == [[-1, 0, 1, 2, -1]]
    assert read_mask(path, (1, 5), SCENES, (2, 255), first=1).tolist() == [[-1, 0, -1, 2, -1]]
    assert read_mask(path, (1, 5), SCENES, (255,), first=2).tolist() == [[-1, -1, 0, 1, -1]]
    with pytest.raises(ImageError, match="holds 255, the task scenes has classes 1 to 3; .* 255$"):
        read_mask(path, (1, 5), SCENES, (), first=1)


def test_a_mask_that_does_not_fit_is_one_error(tmp_path):
    path = save(tmp_path / "mask.png", np.array([[0, 7]], np.uint8))
    with pytest.raises(
        ImageError, match="holds 7, the task scenes has classes 0 to 2; .* --ignore-label 7, or say --reduce"
    ):
        read_mask(path, (1, 2), SCENES, (255,))
    with pytest.raises(ImageError, match="mask.png: has 2x1 pixels, its picture 3x1"):
        read_mask(path, (1, 3), SCENES, (7,))
    Image.new("RGB", (2, 1)).save(tmp_path / "colour.png")
    with pytest.raises(ImageError, match="8-bit PNG of class indexes, grey or palette; got RGB"):
        read_mask(tmp_path / "colour.png", (1, 2), SCENES, ())
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="text.png: is no PNG that can be read"):
        read_mask(tmp_path / "text.png", (1, 2), SCENES, ())


def test_masks_are_scaled_and_cut_as_pictures_are(tmp_path):
    """A picture whose colours are classes and its mask stay together, but for interpolation at borders."""
    steps = Preprocessing(resize=60, crop=48, interpolation="bilinear")
    task = Task("scenes", "pspnet50", SEGMENTATION, ("sky", "road", "car"), preprocessing=steps)
    indexes = np.zeros((90, 130), np.uint8)
    indexes[30:70, 20:64], indexes[50:, 70:] = 2, 2
    truth = read_mask(save(tmp_path / "mask.png", indexes), (90, 130), task, ())
    picture = preprocess(np.repeat(indexes[..., None] * np.uint8(100), 3, 2), steps)[..., 0]
    assert truth.shape == picture.shape == (48, 48)
    assert set(np.unique(truth)) == {0, 2}, "no class between two neighbours"
    inside = np.isin(picture, (0, 200))
    np.testing.assert_array_equal(truth[inside], picture[inside] // 100)
    assert inside.mean() > 0.9
