"""Labelled pictures: a folder for each class, a CSV file of classes, or pictures with masks of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...bundle import SEGMENTATION, Preprocessing, Task
from ...errors import DataError, ImageError, UsageError
from ...files.inputs import Source, expand, open_file
from ...metrics.scores import NO_CLASS, Truth
from ...pictures.classmap import MAX_PALETTE
from ...pictures.images import INPUT_SUFFIXES
from ...pictures.preprocess import preprocess

MAX_CSV_BYTES = 1 << 28
_IMAGES, _MASKS = "images", "masks"
_MASK_SUFFIX = ".png"
_MASK_MODES = ("L", "P")


@dataclass(frozen=True)
class Sample:
    """A picture and what is true of it.

    Attributes:
        source: the picture.
        label: index of its class; None for a segmentation.
        mask: the file of its pixels' classes; None for a classification.
    """

    source: Source
    label: int | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Samples:
    """Labelled pictures, and sentences on how their labels were read."""

    samples: list[Sample]
    notices: tuple[str, ...] = ()

    def spread(self, limit: int | None) -> Samples:
        """At most `limit` of them, evenly from the whole list, so that no class is left out for its name."""
        count = len(self.samples)
        if limit is None or limit >= count:
            return self
        chosen = [self.samples[index * count // limit] for index in range(limit)]
        return Samples(chosen, (*self.notices, f"{limit} of {count} pictures, taken evenly"))


def find_samples(folder: Path, task: Task, labels: Path | None = None) -> Samples:
    """The labelled pictures of a folder, as a task needs them.

    Args:
        folder: FOLDER/CLASS/PICTURE; with `labels` pictures anywhere in it; for a segmentation
            FOLDER/images/NAME.* and FOLDER/masks/NAME.png.
        task: whose classes are meant.
        labels: CSV of file (below the folder) and class (name or index).

    Raises:
        DataError: the folder or the file has another layout.
        UsageError: labels for a segmentation.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; expected a folder"
        )
    if task.kind == SEGMENTATION:
        if labels is not None:
            raise UsageError("--labels is for a classification; a segmentation's classes are in FOLDER/masks")
        return _with_masks(folder, task)
    return _in_class_folders(folder, task) if labels is None else _listed(folder, labels, task)


def read_mask(
    path: Path, size: tuple[int, int], task: Task, ignored: Collection[int], first: int = 0
) -> Truth:
    """The classes of a picture's pixels, resized and cut as the task's preprocessing does to the picture.

    Args:
        path: an 8-bit PNG of class indexes, grey or with a palette.
        size: height and width of the picture before preprocessing.
        task: says what is done, and how many classes there are.
        ignored: indexes of pixels that do not count.
        first: index of the first class; pixels of smaller ones do not count.

    Returns:
        Classes, `NO_CLASS` where ignored, [H',W'].

    Raises:
        ImageError: not such a PNG, of another size, or with an index that is no class.
    """
    indexes = _read_indexes(path)
    if indexes.shape != size:
        raise ImageError(
            f"{path}: has {indexes.shape[1]}x{indexes.shape[0]} pixels, its picture {size[1]}x{size[0]}"
        )
    steps: Preprocessing = replace(task.preprocessing, interpolation="nearest")
    indexes = preprocess(np.repeat(indexes[..., None], 3, 2), steps)[..., 0]
    unlabelled = np.isin(indexes, list(ignored)) | (indexes < first)
    truth = np.where(unlabelled, NO_CLASS, indexes.astype(np.int64) - first)
    if (largest := int(truth.max())) >= len(task.classes):
        raise ImageError(
            f"{path}: holds {largest + first}, the task {task.name} has classes {first} to "
            f"{len(task.classes) - 1 + first}; leave it out with --ignore-label {largest + first}"
            + ("" if first else ", or say --reduce-zero-label if masks count from 1")
        )
    return truth


def _read_indexes(path: Path) -> np.ndarray:
    with open_file(path) as file:
        try:
            image = Image.open(file, formats=["PNG"])
            image.load()
        except Exception as error:  # what Pillow raises on bad files can be anything
            raise ImageError(f"{path}: is no PNG that can be read ({error})") from None
    if image.mode not in _MASK_MODES:
        raise ImageError(
            f"{path}: a mask is an 8-bit PNG of class indexes, grey or palette; got {image.mode}"
        )
    return np.asarray(image)


def _with_masks(folder: Path, task: Task) -> Samples:
    if len(task.classes) > MAX_PALETTE:
        raise UsageError(
            f"masks are 8-bit, and the task {task.name} has {len(task.classes)} classes, over {MAX_PALETTE}"
        )
    for name in (_IMAGES, _MASKS):
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder}: has no folder {name}; expected {_IMAGES}/NAME.* and {_MASKS}/NAME.png"
            )
    images = expand([str(folder / _IMAGES)], INPUT_SUFFIXES, recursive=True)
    masks = {
        source.place.with_suffix(""): source.path
        for source in expand([str(folder / _MASKS)], {_MASK_SUFFIX}, recursive=True)
    }
    samples = [Sample(source, mask=masks.get(source.place.with_suffix(""))) for source in images]
    if lacking := [sample.source.name for sample in samples if sample.mask is None]:
        raise DataError(f"{lacking[0]}: has no mask of its name in {folder / _MASKS} ({len(lacking)} such)")
    return Samples(samples)


def _in_class_folders(folder: Path, task: Task) -> Samples:
    sources = expand([str(folder)], INPUT_SUFFIXES, recursive=True)
    if loose := [source.name for source in sources if len(source.place.parts) < 2]:
        raise DataError(
            f"{loose[0]}: lies in no class's folder; expected {folder}/CLASS/PICTURE, or --labels FILE.csv"
        )
    names = list(dict.fromkeys(source.place.parts[0] for source in sources))
    indexes, notices = _folder_classes(folder, sorted(names), task)
    return Samples([Sample(source, indexes[source.place.parts[0]]) for source in sources], notices)


def _folder_classes(folder: Path, names: list[str], task: Task) -> tuple[dict[str, int], tuple[str, ...]]:
    """Class indexes by folder name: of class names, of numbers, or else of the sorted order."""
    count = len(task.classes)
    known = _class_indexes(task)
    found = {name: known[_plain(name)] for name in names if len(known.get(_plain(name), ())) == 1}
    if len(found) == len(names):
        return {name: indexes[0] for name, indexes in found.items()}, ()
    if all(_is_index(name, count) for name in names):
        return {name: int(name) for name in names}, (f"{folder}: folder names are read as class indexes",)
    if len(names) == count:
        order = {name: index for index, name in enumerate(names)}
        notice = f"{folder}: the folders in sorted order are read as classes 0 to {count - 1} of {task.name}"
        return order, (f"{notice}: {names[0]} as {task.classes[0]}, ...",)
    wrong = next(name for name in names if name not in found)
    raise DataError(
        f"{folder / wrong}: {wrong!r} is no class of the task {task.name} ({_some(task.classes)}), and the "
        f"{len(names)} folders are not its {count} classes in order; name classes with --labels FILE.csv"
    )


def _listed(folder: Path, labels: Path, task: Task) -> Samples:
    rows = _csv_rows(labels)
    known = _class_indexes(task)
    samples = []
    for number, row in rows:
        if len(row) < 2:
            raise DataError(f"{labels}: line {number} is not file,class")
        file, name = row[0].strip(), row[1].strip()
        place = Path(file)
        samples.append(Sample(Source(folder / place, place), _class_of(name, known, task, labels, number)))
    if not samples:
        raise DataError(f"{labels}: holds no lines of file,class")
    return Samples(samples)


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not empty, without a heading file,class."""
    with open_file(path) as file:
        data = file.read(MAX_CSV_BYTES + 1)
    if len(data) > MAX_CSV_BYTES:
        raise DataError(f"{path}: is larger than {MAX_CSV_BYTES} bytes")
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is no CSV in UTF-8: {error}") from None
    heading = bool(rows) and [cell.strip().lower() for cell in rows[0][1][:2]] == ["file", "class"]
    return rows[1:] if heading else rows


def _class_of(name: str, known: dict[str, tuple[int, ...]], task: Task, labels: Path, number: int) -> int:
    indexes = known.get(_plain(name), ())
    if len(indexes) == 1:
        return indexes[0]
    if _is_index(name, len(task.classes)):
        return int(name)
    reason = f"the name of {len(indexes)} classes; give its index" if indexes else "no class of the task"
    raise DataError(f"{labels}: line {number}: {name!r} is {reason} {task.name} ({_some(task.classes)})")


def _class_indexes(task: Task) -> dict[str, tuple[int, ...]]:
    """Indexes of the classes by name as `_plain` makes it; some names are those of several classes."""
    found: dict[str, tuple[int, ...]] = {}
    for index, name in enumerate(task.classes):
        found[_plain(name)] = (*found.get(_plain(name), ()), index)
    return found


def _plain(name: str) -> str:
    """A name without what differs between folders and lists of classes: case, and '_' for a blank."""
    return name.replace("_", " ").casefold()


def _is_index(name: str, count: int) -> bool:
    return name.isascii() and name.isdigit() and int(name) < count


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
