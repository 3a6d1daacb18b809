"""Inputs: which files arguments name, and reading them whole and within limits."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import BitstreamLimitError, ImageLimitError, LimitError, PolcError, ResourceError, UsageError
from ..limits import DEFAULT_LIMITS, Limits, override_hint

STANDARD = "-"
"""How a command line names standard input or standard output."""

_PIECE = 1 << 16  # bytes to ask a pipe for at once: Python allocates as many before it reads

_TOO_LARGE = {"max_bytes": BitstreamLimitError, "max_image_bytes": ImageLimitError}
"""What a file above a limit raises."""

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
    "EMFILE": "too many files are open in this process",
    "ENFILE": "too many files are open on this machine",
    "ENOMEM": "not enough memory",
    "EPIPE": "was closed by its reader before all was written",
    "EBADF": "is closed",
    "ELOOP": "its links lead in a circle",
}
_RESOURCES = frozenset({"ENOSPC", "EDQUOT", "EFBIG", "EMFILE", "ENFILE", "ENOMEM"})
"""Codes for what the system lacks; with all others the name was wrong, or the file is out of reach."""


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
        """Reads all bytes.

        Args:
            limits: bounds.
            limit: name of the bound on the size.

        Raises:
            UsageError: it cannot be read.
            LimitError: it is larger, an `ImageLimitError` or a `BitstreamLimitError` by the limit's name.
            ResourceError: the system lacks memory or open files.
        """
        most: int = getattr(limits, limit)
        try:
            with self.path.open("rb") if self.path else os.fdopen(0, "rb", closefd=False) as stream:
                data = _read_at_most(stream, most)
        except OSError as error:
            raise explain(error, self.name) from error
        if data is None:
            problem = f"is larger than the limit of {most} bytes ({override_hint(limit)})"
            raise _TOO_LARGE.get(limit, LimitError)(f"{self.name}: {problem}")
        return data


def explain(error: OSError, name: str | None = None) -> PolcError:
    """The error to raise for an `OSError`: one line that names the file and says what is wrong.

    A `ResourceError` where the system ran out of something, else a `UsageError`.

    Args:
        error: what the system raised.
        name: what the message calls the file; by default the one the system named.
    """
    code = errno.errorcode.get(error.errno or 0, "")
    reason = _REASONS.get(code) or error.strerror or str(error)
    name = name or str(error.filename or "")
    error_class = ResourceError if code in _RESOURCES else UsageError
    return error_class(f"{name}: {reason}" if name else reason)


def read_plain_file(path: Path, limits: Limits, limit: str) -> bytes:
    """Reads a regular file; links, pipes, devices and folders are refused unopened.

    Args:
        path: of the file.
        limits: bounds.
        limit: name of the bound on its size.

    Raises:
        UsageError: it is missing, something else, changes meanwhile, or cannot be read.
        LimitError: it is too large.
        ResourceError: the system lacks memory or open files.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"))
    refused = UsageError(f"{path} does not exist or is not a regular file")
    try:
        # Checked again once it is open: the name may lead elsewhere by then, and a pipe would block.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise refused
        with os.fdopen(os.open(path, flags), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise refused
            if problem := limits.bytes_problem(limit, found.st_size):
                raise LimitError(f"{path} {problem}")
            data = stream.read(found.st_size + 1)
    except FileNotFoundError:
        raise refused from None
    except OSError as error:
        raise explain(error, str(path)) from error
    if len(data) != found.st_size:
        raise UsageError(f"{path} changes while it is read")
    return data


def open_file(path: Path) -> BinaryIO:
    """Opens a file for reading; an `OSError` becomes what `explain` says."""
    try:
        return path.open("rb")
    except OSError as error:
        raise explain(error, str(path)) from error


def expand(arguments: Sequence[str], suffixes: Collection[str], recursive: bool = False) -> list[Source]:
    """Lists the inputs that arguments name: files, `-`, and the files with `suffixes` in folders, in order.

    A file named by itself may have any suffix, and need not exist: reading it says so. Inside a named folder
    hidden files and folders are skipped, and so are links to folders, pipes and devices.

    Args:
        arguments: paths, or `-` for standard input.
        suffixes: in lower case, with the dot.
        recursive: look into the folders' sub-folders too.

    Raises:
        UsageError: a folder without any such file or that cannot be read, `-` twice, or an empty name.
    """
    check_names(arguments)
    return [source for argument in arguments for source in _expand_one(argument, suffixes, recursive)]


def check_names(arguments: Sequence[str]) -> None:
    """Raises UsageError if `-` is named more than once, or a name is empty."""
    if list(arguments).count(STANDARD) > 1:
        raise UsageError("standard input ('-') is named more than once")
    if "" in arguments:
        raise UsageError("an input has an empty name")


def _expand_one(argument: str, suffixes: Collection[str], recursive: bool) -> list[Source]:
    path = Path(argument)
    if argument == STANDARD:
        return [Source(None, Path())]
    if not path.is_dir():
        return [Source(path, Path(path.name))]
    found = (file for file in _files_below(path, recursive) if file.suffix.lower() in suffixes)
    files = [file for file in found if _is_file(file)]
    if not files:
        hint = "" if recursive else "; pass recursive=True to search its sub-folders"
        known = " ".join(sorted(suffixes))
        raise UsageError(f"{path}: no file in this folder has one of the suffixes {known}{hint}")
    return [Source(file, file.relative_to(path), from_folder=True) for file in files]


def _files_below(folder: Path, recursive: bool) -> list[Path]:
    """Lists everything but folders. Uses a stack: folders may nest deeper than Python's recursion."""
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


def is_special(path: Path) -> bool:
    """Whether a path is there and is not a regular file."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_file(path: Path) -> bool:
    """False for pipes, devices and links to folders. True for what is unreadable: reading it says why."""
    try:
        return not is_special(path)
    except OSError:
        return True


def _read_at_most(stream: BinaryIO, most: int) -> bytes | None:
    """All bytes of a stream; None if there are more than `most`, for a file by its size alone."""
    size = os.fstat(stream.fileno()).st_size
    if size > most:
        return None
    pieces: list[bytes] = []
    have = 0
    while piece := stream.read(min(max(size - have, _PIECE), most + 1 - have)):
        pieces.append(piece)
        have += len(piece)
    return None if have > most else b"".join(pieces)
