"""Outputs: what they are called, and writing them whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from ..errors import UsageError
from .inputs import STANDARD, Source, explain, is_special
from .temporary import sync, temporary_file


@dataclass(frozen=True)
class Target:
    """One output.

    Attributes:
        path: the file; None for standard output.
        make_folders: whether to make the folders it lies in.
        force: whether to overwrite a file that exists.
    """

    path: Path | None
    make_folders: bool = False
    force: bool = False

    @property
    def name(self) -> str:
        """What messages and reports call this output."""
        return STANDARD if self.path is None else str(self.path)

    def check(self) -> None:
        """Finds out early, before any work, what would make `write` fail.

        Raises:
            UsageError: the file exists and `force` is off, or its folder does not exist.
        """
        if self.path is not None:
            _check_free(self.path, self.force, folder_needed=not self.make_folders)

    def write(self, data: bytes) -> None:
        """Writes the output, whole or not at all.

        Raises:
            UsageError: it cannot be written, or the file exists and `force` is off.
            ResourceError: the disk is full, or the system lacks something else.
        """
        if self.path is None:
            _write_stdout(data)
            return
        if self.make_folders:
            make_folder(self.path.parent)
        write_file(self.path, data, self.force)


@dataclass(frozen=True)
class Job:
    """One input and where its output goes; `target` is None where a command only reads."""

    source: Source
    target: Target | None = None


def make_folder(path: Path) -> None:
    """Makes a folder and those above it where they do not exist.

    Raises:
        UsageError: a file is in the way, or it cannot be made.
        ResourceError: the disk is full.
    """
    try:
        for folder in reversed([path, *takewhile(lambda parent: not parent.is_dir(), path.parents)]):
            folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{error.filename}: is a file, but a folder is needed here") from error
    except OSError as error:
        raise explain(error, str(path)) from error


def write_file(path: Path, data: bytes, force: bool = False) -> None:
    """Writes a file; at any moment the name leads to the whole new file, or to what was there before.

    The bytes go to a hidden file beside it (`polc_runtime.files.temporary`), are flushed to disk, and then
    the file gets its name; links are followed. The permissions are a new file's, by the umask. A device or a
    pipe is written to directly.

    Args:
        path: the file.
        data: all of it.
        force: overwrite a file that exists. Without it, one that appears meanwhile is kept too.

    Raises:
        UsageError: the file exists and `force` is off, its folder does not exist, or it cannot be written.
        ResourceError: the disk is full, or the system lacks something else.
    """
    _check_free(path, force)
    try:
        if is_special(path):  # by this name: a pipe of /dev/fd has no other
            path.write_bytes(data)
            return
        real = Path(os.path.realpath(path))
        with temporary_file(real.parent, data) as temporary:
            if not _linked(temporary, real):
                _check_free(path, force)
                temporary.replace(real)
        sync(real.parent)
    except OSError as error:
        raise explain(error, str(path)) from error


def plan(
    sources: Sequence[Source], output: str, strip: Collection[str], suffix: str, force: bool = False
) -> list[Job]:
    """Gives every input its output.

    `output` is a folder if it ends in a slash, if it exists as one, for several inputs, and for inputs that
    were found in a folder; else a file. In a folder, an output has its input's name, with `suffix` in place
    of the input's own suffix if that is one of `strip` (lower case), and after it otherwise.

    Args:
        sources: the inputs.
        output: a file, a folder, or `-` for standard output.
        strip: suffixes to replace.
        suffix: of the outputs.
        force: overwrite files that exist.

    Raises:
        UsageError: two inputs would write one file, an output is an input, or `-` or an empty name cannot be
            the output here.
    """
    if not output:
        raise UsageError("the output has an empty name")
    several = len(sources) > 1 or any(source.from_folder for source in sources)
    if output == STANDARD and several:
        raise UsageError(
            f"standard output ('-') takes one input; there are {len(sources)}. Name an output folder"
        )
    if output == STANDARD:
        return [Job(source, Target(None)) for source in sources]
    if several or output.endswith(("/", os.sep)) or Path(output).is_dir():
        folder = Path(output)
        jobs = [
            Job(source, Target(_path_in(folder, source, strip, suffix), make_folders=True, force=force))
            for source in sources
        ]
    else:
        jobs = [Job(source, Target(Path(output), force=force)) for source in sources]
    check_distinct(jobs)
    return jobs


def _path_in(folder: Path, source: Source, strip: Collection[str], suffix: str) -> Path:
    if source.path is None:
        raise UsageError(f"standard input has no name to use in the folder {folder}; name an output file")
    place = source.place
    stem = place.stem if place.suffix.lower() in strip else place.name
    return folder / place.with_name(stem + suffix)


def check_distinct(jobs: Sequence[Job]) -> None:
    """Raises UsageError if two inputs would write one file, or an output is an input."""
    key: Callable[[Path], str] = os.path.realpath
    inputs = {key(job.source.path) for job in jobs if job.source.path is not None}
    writers: dict[str, Source] = {}
    for job in jobs:
        if job.target is None or job.target.path is None:
            continue
        real = key(job.target.path)
        if real in inputs:
            raise UsageError(f"{job.target.name}: is an input, and would be overwritten; name another output")
        if real in writers:
            both = f"{writers[real].name} and {job.source.name}"
            raise UsageError(
                f"{both} would both be written to {job.target.name}; rename one, or run them apart"
            )
        writers[real] = job.source


def _check_free(path: Path, force: bool, folder_needed: bool = True) -> None:
    try:
        if path.is_dir():
            raise UsageError(f"{path}: is a folder, not a file")
        if not force and path.exists() and not is_special(path):
            raise UsageError(f"{path}: exists already; overwrite it with force=True")
        if folder_needed and not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; make it first")
    except OSError as error:
        raise explain(error, str(path)) from error


def _linked(temporary: Path, path: Path) -> bool:
    """Names the file by a hard link, which unlike a rename never replaces a file that appeared meanwhile.

    False if there is such a file, or the file system has no hard links.
    """
    try:
        os.link(temporary, path)
    except OSError:
        return False
    return True


def _write_stdout(data: bytes) -> None:
    """Writes past Python's buffer, so that a reader that went away is an error here and not at exit."""
    rest = memoryview(data)
    try:
        with os.fdopen(1, "wb", buffering=0, closefd=False) as stream:
            while rest:
                rest = rest[stream.write(rest) or 0 :]
    except OSError as error:
        raise explain(error, "standard output") from error
