"""Images and their labels as they lie on disk: folders, a folder for each class, images with label maps.

Training and measuring read the same layouts with it. It needs no PyTorch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .bundle import SEGMENTATION, Task
from .errors import DataError, UsageError, first_line
from .files.inputs import Source, expand
from .limits import DEFAULT_LIMITS, Limits
from .pictures.classmap import MAX_PALETTE
from .pictures.images import INPUT_SUFFIXES, safe_formats
from .pictures.listing import ImageItem, name_images

Pair = tuple[Path, Path]
"""Files of an image and of its label map."""

Truth = int | str | Path | NDArray[np.integer]
"""What is true of an image: the index of its class, or the labels of its pixels, as a file or as [H,W]."""

SPLITS = {"train": ("train",), "val": ("val", "test"), "test": ("test", "val")}
"""A split -> names of the sub-folder that may hold it, the best first."""

IGNORED_LABEL = 255
"""The label that usually stands for pixels of no class."""

MAX_LABEL = 65535
_IMAGES, _MASKS = "images", "masks"
_LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


@dataclass(frozen=True)
class Sample:
    """An image and what is true of it."""

    image: ImageItem
    truth: Truth


@dataclass(frozen=True)
class Samples:
    """Labelled images, and sentences on how their labels were read."""

    samples: Sequence[Sample]
    notices: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> Samples:
        """At most `limit` of them, evenly from the whole list, so that every class keeps its share."""
        count = len(self.samples)
        if limit is None or limit >= count:
            return self
        chosen = [self.samples[index * count // limit] for index in range(limit)]
        return Samples(chosen, (*self.notices, f"{limit} of {count} images, taken evenly"))


def image_files(folder: Path) -> list[Path]:
    """Every image file below a folder, in sorted order; hidden files are passed over.

    Raises:
        DataError: there is no such folder, or no image in it.
        PolcError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder of images")
    try:
        sources = expand([str(folder)], INPUT_SUFFIXES, recursive=True)
    except UsageError:
        raise DataError(f"{folder}: holds no image files, nor do its sub-folders") from None
    return [source.path for source in sources if source.path is not None]


def split_folder(folder: Path, split: str | None) -> Path:
    """Where a split's files lie: its sub-folder; without one, `train` is the folder itself, all of it.

    Args:
        folder: what the user names.
        split: one of `SPLITS`; None takes the folder as it is.

    Raises:
        DataError: there is no such folder, or none with the validation or test images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder of images")
    if split is None:
        return folder
    if split not in SPLITS:
        raise DataError(f"expected the split to be one of {', '.join(SPLITS)}, got {split!r}")
    for name in SPLITS[split]:
        if (folder / name).is_dir():
            return folder / name
    if split == "train":
        return folder
    raise DataError(
        f"{folder}: has no sub-folder {' or '.join(SPLITS[split])}; name the {split} images' own folder"
    )


def find_samples(folder: str | Path, task: Task, labels: str | Path | None = None) -> Samples:
    """The labelled images of a folder, as a task needs them.

    Args:
        folder: FOLDER/CLASS/IMAGE; with `labels` images anywhere in it; for a segmentation the layout of
            `paired_folders`.
        task: whose classes are meant.
        labels: CSV of file (below the folder) and class (name or index).

    Raises:
        DataError: the folder or the CSV file has another layout.
        UsageError: labels for a segmentation.
    """
    folder = Path(folder)
    if task.kind == SEGMENTATION:
        if labels is not None:
            raise UsageError(
                f"the task {task.name} is a segmentation, whose labels are in FOLDER/{_MASKS}, "
                f"not in a CSV file like {labels}"
            )
        return _with_masks(folder, task)
    return _in_class_folders(folder, task) if labels is None else _listed(folder, Path(labels), task)


def paired_folders(folder: str | Path, split: str | None = None) -> list[Pair]:
    """Images in FOLDER/images with label maps of the same name, but for the suffix, in FOLDER/masks.

    Args:
        folder: with the two folders, or with one of each split with the two in it.
        split: which of `train`, `val` and `test` to take; see `split_folder`.

    Raises:
        DataError: a folder is missing or empty, or an image has no label map.
    """
    root = split_folder(Path(folder), split)
    images, masks = root / _IMAGES, root / _MASKS
    found = {mask.relative_to(masks).with_suffix(""): mask for mask in image_files(masks)}
    pairs = [(file, found.get(file.relative_to(images).with_suffix(""))) for file in image_files(images)]
    if lacking := [file for file, mask in pairs if mask is None]:
        raise DataError(f"{masks}: has no label map for {len(lacking)} of the images, such as {lacking[0]}")
    return [(file, mask) for file, mask in pairs if mask is not None]


def label_map(
    classes: int,
    ignored: Collection[int] = (IGNORED_LABEL,),
    reduce_zero_label: bool = False,
    void: int = IGNORED_LABEL,
) -> dict[int, int]:
    """What the labels in files stand for, where that is not the class of the same index.

    Args:
        classes: how many there are.
        ignored: labels in the files of pixels that do not count.
        reduce_zero_label: whether files count classes from 1, and 0 does not count, as in ADE20K.
        void: stands for pixels that do not count.
    """
    shifted = {label: label - 1 for label in range(1, classes + 1)} if reduce_zero_label else {}
    return shifted | dict.fromkeys((*((0,) if reduce_zero_label else ()), *ignored), void)


def to_classes(
    labels: NDArray[np.integer], classes: int, meanings: Mapping[int, int], void: int, name: str
) -> NDArray[np.int64]:
    """The classes that labels stand for.

    Args:
        labels: [H,W], 0..65535, as a file has them.
        classes: how many there are.
        meanings: of `label_map`; a label that it lacks is the class of that index.
        void: stands for pixels that do not count.
        name: of the file, for messages.

    Returns:
        int64 [H,W], 0..classes-1 or `void`.

    Raises:
        DataError: a label stands for no class.
    """
    if labels.size and (labels.min() < 0 or labels.max() > MAX_LABEL):
        raise DataError(f"{name}: labels lie in 0..{MAX_LABEL}, these in {labels.min()}..{labels.max()}")
    table = np.arange(MAX_LABEL + 1)
    for label, meaning in meanings.items():
        table[label] = meaning
    known = (table >= 0) & (table < classes)
    found: NDArray[np.int64] = table[labels]
    wrong = np.unique(labels[~known[labels] & (found != void)])
    if wrong.size:
        first, last = np.flatnonzero(known)[[0, -1]]
        raise DataError(
            f"{name}: holds the label {wrong[0]}, but the labels of {classes} classes are {first}..{last}; "
            "ignore it, or set reduce_zero_label=True where files count classes from 1"
        )
    return found


def read_labels(path: Path, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.int64]:
    """The labels, int64 [H,W], in a file of one channel: palette indexes, or grey of 1, 8 or 16 bits.

    Raises:
        DataError: the file cannot be read, is too large, or has another kind of pixels.
    """
    try:
        with Image.open(path, formats=safe_formats()) as image:
            if problem := limits.size_problem(*image.size):
                raise DataError(f"{path}: {problem}")
            if image.mode not in _LABEL_MODES:
                raise DataError(
                    f"{path}: expected a label map of one channel, got pixels of mode {image.mode}"
                )
            return np.asarray(image).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # what Pillow raises on damaged files can be anything
        raise DataError(f"{path}: cannot be read as a label map ({first_line(error)})") from error


def _with_masks(folder: Path, task: Task) -> Samples:
    if len(task.classes) > MAX_PALETTE:
        raise UsageError(f"the task {task.name} has {len(task.classes)} classes; at most {MAX_PALETTE} fit")
    pairs = paired_folders(folder)
    items = _named([file for file, _ in pairs], folder / _IMAGES)
    return Samples([Sample(item, mask) for item, (_, mask) in zip(items, pairs, strict=True)])


def _in_class_folders(folder: Path, task: Task) -> Samples:
    files = image_files(folder)
    if loose := [file for file in files if file.parent == folder]:
        raise DataError(
            f"{loose[0]}: is not in the folder of a class; expected {folder}/CLASS/IMAGE, or a CSV file"
        )
    names = [file.relative_to(folder).parts[0] for file in files]
    indexes, notices = _folder_classes(folder, sorted(set(names)), task)
    labels = [indexes[name] for name in names]
    pairs = zip(_named(files, folder), labels, strict=True)
    return Samples([Sample(*pair) for pair in pairs], notices)


def _named(files: Sequence[Path], root: Path) -> list[ImageItem]:
    return name_images([Source(file, file.relative_to(root)) for file in files])


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
        f"{folder / wrong}: {wrong!r} is not a class of the task {task.name} ({_some(task.classes)}), and "
        f"{len(names)} folders cannot be its {count} classes in order; take the labels from a CSV file"
    )


def _listed(folder: Path, labels: Path, task: Task) -> Samples:
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder of images")
    known = _class_indexes(task)
    sources, classes = [], []
    for number, row in _csv_rows(labels):
        if len(row) < 2:
            raise DataError(f"{labels}: line {number} is not file,class")
        place = Path(row[0].strip())
        sources.append(Source(folder / place, place))
        classes.append(_class_of(row[1].strip(), known, task, f"{labels}: line {number}"))
    if not sources:
        raise DataError(f"{labels}: holds no lines of file,class")
    return Samples([Sample(*pair) for pair in zip(name_images(sources), classes, strict=True)])


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of the lines that are not empty, without a heading file,class."""
    data = Source(path, Path(path.name)).read()
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig")))
        rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file in UTF-8: {error}") from None
    heading = bool(rows) and [cell.strip().lower() for cell in rows[0][1][:2]] == ["file", "class"]
    return rows[1:] if heading else rows


def _class_of(name: str, known: Mapping[str, tuple[int, ...]], task: Task, where: str) -> int:
    indexes = known.get(_plain(name), ())
    if len(indexes) == 1:
        return indexes[0]
    if _is_index(name, len(task.classes)):
        return int(name)
    reason = f"the name of {len(indexes)} classes; give its index" if indexes else "not a class of the task"
    raise DataError(f"{where}: {name!r} is {reason} {task.name} ({_some(task.classes)})")


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
