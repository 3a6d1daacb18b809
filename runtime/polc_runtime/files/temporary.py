"""Temporary files and folders beside their target, which the next run clears away where a run was killed.

They are called `.polc-<16 hexadecimal digits>.tmp`. A run holds a lock on each that it makes, which ends with
the process, however that ends: so a later run tells what was left behind from what another run still writes.
Where there are no such locks (Windows, some network file systems), nothing is cleared.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.polc-[0-9a-f]{16}\.tmp")
_BINARY = getattr(os, "O_BINARY", 0)
_UNFOLLOWED = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK"))
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file in a folder, open for writing; it is gone afterwards, unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    clear_leftovers(folder)
    path, descriptor = _made(
        folder, lambda path: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    )
    stream = os.fdopen(descriptor, "wb")
    try:
        yield path, stream
    finally:
        with suppress(OSError):
            path.unlink()
        with suppress(OSError):  # what could not be written before cannot be written now
            stream.close()


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder in a folder; it is gone afterwards with all in it, unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """

    def make(path: Path) -> int:
        path.mkdir()
        return os.open(path, _UNFOLLOWED) if fcntl else os.open(os.devnull, os.O_RDONLY)

    clear_leftovers(folder)
    path, descriptor = _made(folder, make)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def replace_folder(fresh: Path, out: Path) -> None:
    """Gives a folder the name `out`; what has the name so far gets the other one.

    All that is in `fresh` reaches the disk first. On Linux the two change names in one step, so that there is
    a whole folder called `out` at any moment; elsewhere there is none for an instant.

    Raises:
        OSError: it cannot be renamed; `out` is as before.
    """
    for root, _, names in os.walk(fresh):
        for path in (Path(root, name) for name in ("", *names)):
            sync(path)
    if not out.exists():
        fresh.rename(out)
    elif not _exchanged(fresh, out):
        _exchange_by_steps(fresh, out)
    sync(out.parent)


def sync(path: Path) -> None:
    """Has a file's bytes or a folder's names reach the disk, where the system can (not everywhere)."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=1024)
def clear_leftovers(folder: Path) -> None:
    """Removes what killed runs left in a folder; once a process for each folder."""
    if fcntl is None:
        return
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if _NAME.fullmatch(path.name):
                _remove_unless_used(path)


def _made(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new name, and the descriptor of what was made there, locked."""
    while True:
        path = folder / f".polc-{secrets.token_hex(8)}.tmp"
        descriptor = make(path)
        if _locked(descriptor) is not False and path.exists():
            return path, descriptor
        os.close(descriptor)  # another run took it for a leftover before it was locked, and removes it


def _locked(descriptor: int) -> bool | None:
    """Whether this process has the lock now; None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_unless_used(path: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(path, _UNFOLLOWED)
        try:
            if os.fstat(descriptor).st_uid == os.getuid() and _locked(descriptor):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        finally:
            os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two could change names in one step (Linux's renameat2)."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(rename(*arguments) == 0)


def _exchange_by_steps(fresh: Path, out: Path) -> None:
    old = fresh.with_name(f".polc-{secrets.token_hex(8)}.tmp")
    out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        old.rename(out)
        raise
    old.rename(fresh)
