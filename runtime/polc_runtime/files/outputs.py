"""Outputs: what they are called, and writing them whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from ..errors import UsageError
from .inputs import STANDARD, Source, explain, is_special
from .temporary import sync, temporary_file


@dataclass(frozen=True)
class Target:
    """One output.

    Attributes:
        path: the file; None for standard output.
        make_folders: whether the folders it lies in are made if they are not there.
    """

    path: Path | None
    make_folders: bool = False

    @property
    def name(self) -> str:
        """What messages and reports call this output."""
        return STANDARD if self.path is None else str(self.path)

    def check(self, force: bool) -> None:
        """Finds out early, before any work, what would make `write` fail.

        Raises:
            UsageError: the file exists and `force` is not given, or its folder does not exist.
        """
        if self.path is not None:
            _check_free(self.path, force, folder_needed=not self.make_folders)

    def write(self, data: bytes, force: bool) -> None:
        """Writes the output, whole or not at all.

        Raises:
            PolcError: it cannot be written, or the file exists and `force` is not given.
        """
        if self.path is None:
            _write_stdout(data)
            return
        if self.make_folders:
            make_folder(self.path.parent)
        write_file(self.path, data, force)


@dataclass(frozen=True)
class Job:
    """One input and where its output goes; `target` is None where a command only reads."""

    source: Source
    target: Target | None = None


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, if they are not there; an `OSError` becomes a `PolcError`."""
    try:
        for folder in reversed([path, *takewhile(lambda parent: not parent.is_dir(), path.parents)]):
            folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{error.filename}: is a file, but a folder is needed here") from error
    except OSError as error:
        raise explain(error, str(path)) from error


def write_file(path: Path, data: bytes, force: bool = False) -> None:
    """Writes a file so that under its name there is the whole of it or what was there before.

    The bytes go to a hidden file beside it (`polc_runtime.files.temporary`), are synced to the disk, and then
    take the name; a link is followed. The permissions are a new file's, by the umask. A device or a pipe is
    written to directly.

    Raises:
        UsageError: the file exists and `force` is not given, or its folder does not exist.
        PolcError: any other reason the system gives.
    """
    _check_free(path, force)
    try:
        if is_special(path):  # by this name: a pipe of /dev/fd has no other
            path.write_bytes(data)
            return
        real = Path(os.path.realpath(path))
        with temporary_file(real.parent) as (temporary, stream):
            _write_synced(stream, data)
            if not _published_as_new(temporary, real):
                _check_free(path, force)
                temporary.replace(real)
        sync(real.parent)
    except OSError as error:
        raise explain(error, str(path)) from error


def plan(sources: Sequence[Source], output: str, strip: Collection[str], suffix: str) -> list[Job]:
    """Gives every input its output.

    `output` is a file for one input that was named itself, and a folder for several, for inputs found in a
    folder, if it ends in a slash, and if it is a folder. In a folder, an output is called as its input, with
    `suffix` in place of the input's own suffix if that is one of `strip` (lower case), and behind it
    otherwise.

    Raises:
        UsageError: two inputs would write one file, an output is an input, or `-` or an empty name is no
            possible output here.
    """
    if not output:
        raise UsageError("the output has an empty name")
    several = len(sources) > 1 or any(source.from_folder for source in sources)
    if output == STANDARD and several:
        raise UsageError(f"'-o -' takes one input; there are {len(sources)}. Name an output folder")
    if output == STANDARD:
        return [Job(source, Target(None)) for source in sources]
    if several or output.endswith(("/", os.sep)) or Path(output).is_dir():
        jobs = [Job(source, _target_in(Path(output), source, strip, suffix)) for source in sources]
    else:
        jobs = [Job(source, Target(Path(output))) for source in sources]
    check_distinct(jobs)
    return jobs


def _target_in(folder: Path, source: Source, strip: Collection[str], suffix: str) -> Target:
    if source.path is None:
        raise UsageError(f"standard input has no name to use in the folder {folder}; give -o a file")
    place = source.place
    stem = place.stem if place.suffix.lower() in strip else place.name
    return Target(folder / place.with_name(stem + suffix), make_folders=True)


def check_distinct(jobs: Sequence[Job]) -> None:
    """Raises UsageError if two inputs would write one file, or an output is an input."""
    key: Callable[[Path], str] = os.path.realpath
    inputs = {key(job.source.path): job.source for job in jobs if job.source.path is not None}
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
            raise UsageError(f"{path}: exists already; overwrite it with --force")
        if folder_needed and not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; make it first")
    except OSError as error:
        raise explain(error, str(path)) from error


def _write_synced(stream: BinaryIO, data: bytes) -> None:
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())
    if os.name == "nt":
        stream.close()  # a file that is open cannot be renamed there


def _published_as_new(temporary: Path, path: Path) -> bool:
    """Names the file by a hard link, which unlike a rename never replaces a file that came meanwhile.

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
