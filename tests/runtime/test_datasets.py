"""Labelled images: folders of classes, CSV files, label maps; what is wrong with them in one line."""

import numpy as np
import pytest
from PIL import Image

from polc_runtime.bundle import CLASSIFICATION, SEGMENTATION, Preprocessing, Task
from polc_runtime.datasets import find_samples, label_map, read_labels, to_classes
from polc_runtime.errors import DataError, UsageError

PETS = Task("pets", "convnext", CLASSIFICATION, ("Maine Coon", "pug", "beagle", "pug dog", "Pug Dog"))
DIGITS = Task("digits", "convnext", CLASSIFICATION, tuple(f"digit {n}" for n in range(12)))
SCENES = Task("scenes", "pspnet50", SEGMENTATION, ("sky", "road", "car"), preprocessing=Preprocessing())


def put(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    return folder


def labels(found):
    return {sample.image.name: sample.truth for sample in found.samples}


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
        DataError, match=r"tiger: 'tiger' is not a class of the task pets \(Maine Coon, pug, beagle"
    ):
        find_samples(tmp_path, PETS)


def test_a_name_of_two_classes_is_no_class(tmp_path):
    with pytest.raises(DataError, match="'pug_dog' is not a class"):
        find_samples(put(tmp_path, "pug_dog/a.png"), PETS)


def test_pictures_outside_of_folders_are_an_error(tmp_path):
    with pytest.raises(
        DataError, match=r"a.png: is not in the folder of a class; expected .*/CLASS/IMAGE, or a CSV file"
    ):
        find_samples(put(tmp_path, "a.png", "beagle/b.png"), PETS)


@pytest.mark.parametrize("heading", ["", "file,class\n", "\ufeffFile, Class\n"])
def test_classes_from_a_csv_file(tmp_path, heading):
    put(tmp_path, "a.png", "sub/b.png")
    csv = tmp_path / "labels.csv"
    csv.write_text(f"{heading}a.png,Maine Coon\nsub/b.png, 4\n\n", encoding="utf-8")
    found = find_samples(tmp_path, PETS, csv)
    assert labels(found) == {"a.png": 0, "sub/b.png": 4}
    assert [sample.image.source.path for sample in found.samples] == [
        tmp_path / "a.png",
        tmp_path / "sub/b.png",
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a.png,tiger\n", r"line 1: 'tiger' is not a class of the task pets"),
        ("a.png,pug\nb.png,5\n", r"line 2: '5' is not a class of the task"),
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
        with pytest.raises(DataError, match="absent: is not a folder of images"):
            find_samples(tmp_path / "absent", task)
    with pytest.raises(DataError, match="holds no image files"):
        find_samples(tmp_path, PETS)


def test_a_limit_takes_pictures_of_all_classes(tmp_path):
    put(tmp_path, *(f"{n}/{k}.png" for n in range(10) for k in range(10)))
    found = find_samples(tmp_path, DIGITS).limited(10)
    assert [sample.truth for sample in found.samples] == list(range(10))
    assert found.notices[-1] == "10 of 100 images, taken evenly"
    whole = find_samples(tmp_path, DIGITS)
    assert whole.limited(100) is whole and whole.limited(None) is whole
    assert len(whole.limited(7).samples) == 7


def test_masks_are_found_by_name(tmp_path):
    put(tmp_path, "images/a.jpg", "images/sub/b.png", "masks/a.png", "masks/sub/b.png", "masks/c.png")
    found = find_samples(tmp_path, SCENES)
    assert [(sample.image.name, sample.truth) for sample in found.samples] == [
        ("a.jpg", tmp_path / "masks/a.png"),
        ("sub/b.png", tmp_path / "masks/sub/b.png"),
    ]


def test_images_without_masks_are_an_error(tmp_path):
    put(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png")
    with pytest.raises(DataError, match=r"masks: has no label map for 2 of the images, such as .*b.jpg"):
        find_samples(tmp_path, SCENES)


def test_a_segmentation_needs_two_folders_and_no_labels(tmp_path):
    with pytest.raises(DataError, match=r"masks: is not a folder of images"):
        find_samples(put(tmp_path, "images/a.png"), SCENES)
    with pytest.raises(UsageError, match="scenes is a segmentation, whose labels are in FOLDER/masks"):
        find_samples(tmp_path, SCENES, tmp_path / "labels.csv")


def classes(labels, ignored, void=-1, **more):
    return to_classes(np.array(labels), 3, label_map(3, ignored, void=void, **more), void, "a.png").tolist()


def test_labels_are_classes_and_ignored_pixels():
    labels = [[0, 1, 2], [255, 254, 0]]
    assert classes(labels, (254, 255)) == [[0, 1, 2], [-1, -1, 0]]
    assert classes(labels, (0, 254, 255)) == [[-1, 1, 2], [-1, -1, -1]]
    assert classes(labels, (254, 255), void=255) == [[0, 1, 2], [255, 255, 0]]


def test_labels_may_count_classes_from_one():
    labels = [[0, 1, 2, 3, 255]]
    assert classes(labels, (255,), reduce_zero_label=True) == [[-1, 0, 1, 2, -1]]
    assert classes(labels, (2, 255), reduce_zero_label=True) == [[-1, 0, -1, 2, -1]]
    with pytest.raises(
        DataError, match=r"a.png: holds the label 255, but the labels of 3 classes are 1\.\.3;"
    ):
        classes(labels, (), reduce_zero_label=True)


@pytest.mark.parametrize("labels", [[[0, 7]], [[3]]])
def test_a_label_that_is_no_class_is_an_error_that_says_what_to_do(labels):
    message = (
        rf"holds the label {max(labels[0])}, but the labels of 3 classes are 0\.\.2; .* reduce_zero_label"
    )
    with pytest.raises(DataError, match=message):
        classes(labels, (255,))


@pytest.mark.parametrize("palette", [False, True])
def test_a_label_map_is_read_as_it_stands(tmp_path, palette):
    indexes = np.array([[0, 1, 2], [255, 254, 0]], np.uint8)
    image = Image.fromarray(indexes)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), indexes)


def test_what_is_no_label_map_is_one_error(tmp_path):
    Image.new("RGB", (2, 1)).save(tmp_path / "colour.png")
    with pytest.raises(DataError, match="expected a label map of one channel, got pixels of mode RGB"):
        read_labels(tmp_path / "colour.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="text.png: cannot be read as a label map"):
        read_labels(tmp_path / "text.png")
