"""Files in and out: which inputs there are, what outputs are called, and writing them whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from .errors import PolcError, UsageError
from .limits import DEFAULT_LIMITS, Limits, how_to_raise
from .temporary import sync, temporary_file

STANDARD = "-"
"""How a command line names standard input or standard output."""

_PIECE = 1 << 16  # bytes to ask a pipe for at once: room for all that is asked for is made before

_REASONS = {
    "ENOENT": "there is no such file or folder",
    "ENOTDIR": "a part of the path is a file, not a folder",
    "EISDIR": "is a folder, not a file",
    "EACCES": "permission denied",
    "EPERM": "permission denied",
    "ENOSPC": "no space is left on the disk; free some and run again",
    "EDQUOT": "the disk quota is used up; free some space and run again",
    "EROFS": "the file system is read-only; choose another place",
    "ENAMETOOLONG": "the name is too long",
    "EFBIG": "the file system does not take files this large",
    "EMFILE": "too many files are open",
    "EPIPE": "was closed by its reader before all was written",
    "EBADF": "is closed",
    "ELOOP": "its links lead in a circle",
}


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        path: the file; None for standard input.
        place: where its output goes below an output folder, before the suffix is changed: the file's name,
            behind the sub-folders it was found in.
        from_folder: whether it was found in a folder that was named, and not named itself.
    """

    path: Path | None
    place: Path
    from_folder: bool = False

    @property
    def name(self) -> str:
        """What messages call this input."""
        return "standard input" if self.path is None else str(self.path)

    def read(self, limits: Limits = DEFAULT_LIMITS, limit: str = "max_image_bytes") -> bytes:
        """All its bytes.

        Args:
            limits: bounds.
            limit: name of the bound on the size.

        Raises:
            PolcError: it cannot be read, or is larger.
        """
        max_bytes = getattr(limits, limit)
        try:
            with self.path.open("rb") if self.path else os.fdopen(0, "rb", closefd=False) as stream:
                data = _read_at_most(stream, max_bytes)
        except OSError as error:
            raise explain(error, self.name) from error
        if data is None:
            raise UsageError(
                f"{self.name}: is larger than the limit of {max_bytes} bytes ({how_to_raise(limit)})"
            )
        return data


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


def explain(error: OSError, name: str | None = None) -> PolcError:
    """The error to raise instead of `error`: one line that names the file and says what is wrong with it."""
    code = errno.errorcode.get(error.errno or 0, "")
    reason = _REASONS.get(code) or error.strerror or str(error)
    name = name or str(error.filename or "")
    return PolcError(f"{name}: {reason}" if name else reason)


def read_plain_file(path: Path, limits: Limits, limit: str) -> bytes:
    """All bytes of a file that is none of links, pipes, devices and folders.

    Args:
        path: of the file.
        limits: bounds.
        limit: name of the bound on its size.

    Raises:
        PolcError: it is missing, something else, too large, or cannot be read.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"))
    try:
        # Checked again once it is open: what has a name may change, and a pipe would keep us waiting.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise PolcError(f"{path} is missing or no plain file")
        with os.fdopen(os.open(path, flags), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise PolcError(f"{path} is missing or no plain file")
            problem = limits.bytes_problem(limit, found.st_size)
            data = b"" if problem else stream.read(found.st_size + 1)
    except FileNotFoundError:
        raise PolcError(f"{path} is missing or no plain file") from None
    except OSError as error:
        raise explain(error, str(path)) from error
    if problem or len(data) != found.st_size:
        raise PolcError(f"{path} {problem or 'changes while it is read'}")
    return data


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading; an `OSError` becomes a `PolcError`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise explain(error, str(path)) from error


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

    The bytes go to a hidden file beside it (`polc_runtime.temporary`), are synced to the disk, and then take
    the name; a link is followed. The permissions are a new file's, by the umask. A device or a pipe is
    written to directly.

    Raises:
        UsageError: the file exists and `force` is not given, or its folder does not exist.
        PolcError: any other reason the system gives.
    """
    _check_free(path, force)
    try:
        if _is_special(path):  # by this name: a pipe of /dev/fd has no other
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


def expand(arguments: Sequence[str], suffixes: Collection[str], recursive: bool = False) -> list[Source]:
    """The inputs that arguments stand for: files, `-`, and the files with `suffixes` in folders, in order.

    A file named by itself may have any suffix, and need not exist: reading it says so. Hidden files and
    folders inside a named folder are passed over, as are links to folders, pipes and devices.

    Args:
        arguments: paths, or `-` for standard input.
        suffixes: in lower case, with the dot.
        recursive: look into the folders' sub-folders too.

    Raises:
        UsageError: a folder without any such file, `-` more than once, or an empty name.
        PolcError: a folder cannot be read.
    """
    check_names(arguments)
    return [source for argument in arguments for source in _expand_one(argument, suffixes, recursive)]


def check_names(arguments: Sequence[str]) -> None:
    """Raises UsageError if `-` is among them more than once, or an empty name."""
    if list(arguments).count(STANDARD) > 1:
        raise UsageError("standard input ('-') is named more than once")
    if "" in arguments:
        raise UsageError("an input has an empty name")


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


def _expand_one(argument: str, suffixes: Collection[str], recursive: bool) -> list[Source]:
    path = Path(argument)
    if argument == STANDARD:
        return [Source(None, Path())]
    if not path.is_dir():
        return [Source(path, Path(path.name))]
    found = (file for file in _files_below(path, recursive) if file.suffix.lower() in suffixes)
    files = [file for file in found if _is_file(file)]
    if not files:
        hint = "" if recursive else "; its sub-folders are searched with --recursive"
        known = " ".join(sorted(suffixes))
        raise UsageError(f"{path}: no file in this folder has one of the suffixes {known}{hint}")
    return [Source(file, file.relative_to(path), from_folder=True) for file in files]


def _files_below(folder: Path, recursive: bool) -> list[Path]:
    """All that is no folder, folder by folder; without recursion, which ends at some depth."""
    found: list[Path] = []
    left = [folder]
    while left:
        root = left.pop()
        try:
            with os.scandir(root) as entries:
                seen = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        except OSError as error:
            raise explain(error, str(root)) from error
        visible = [(Path(root, name), is_folder) for name, is_folder in seen if not name.startswith(".")]
        found += [path for path, is_folder in visible if not is_folder]
        if recursive:
            left += [path for path, is_folder in reversed(visible) if is_folder]
    return found


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
        if not force and path.exists() and not _is_special(path):
            raise UsageError(f"{path}: exists already; overwrite it with --force")
        if folder_needed and not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist; make it first")
    except OSError as error:
        raise explain(error, str(path)) from error


def _is_special(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_file(path: Path) -> bool:
    """False for pipes, devices and links to folders; of what cannot be looked at, reading it says why."""
    try:
        return not _is_special(path)
    except OSError:
        return True


def _read_at_most(stream: BinaryIO, most: int) -> bytes | None:
    """All bytes of a stream; None if there are more than `most`. A file's size is looked at first."""
    size = os.fstat(stream.fileno()).st_size
    if size > most:
        return None
    pieces: list[bytes] = []
    have = 0
    while piece := stream.read(min(max(size - have, _PIECE), most + 1 - have)):
        pieces.append(piece)
        have += len(piece)
    return None if have > most else b"".join(pieces)


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
