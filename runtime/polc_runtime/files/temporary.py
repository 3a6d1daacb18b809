"""Temporary files and folders beside their target, called `.polc-<16 hexadecimal digits>.tmp`.

A killed run may leave one behind. The next run that writes into the same folder removes those older than a
day: no run takes as long for one file or one bundle.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

MAX_AGE = 24 * 3600.0
"""Seconds since its last change after which a temporary file or folder is a leftover."""

_LEFTOVERS = f".polc-{'[0-9a-f]' * 16}.tmp"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def temporary_file(folder: Path, data: bytes) -> Iterator[Path]:
    """A new file in a folder, written and flushed to disk; removed afterwards, unless it was renamed.

    Raises:
        OSError: it cannot be written.
    """
    path = _new_path(folder)
    try:
        with path.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield path
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A new folder in a folder; removed afterwards with all its files, unless it was renamed.

    Raises:
        OSError: it cannot be made.
    """
    path = _new_path(folder)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def replace_folder(fresh: Path, out: Path) -> None:
    """Swaps two folders: `fresh` becomes `out`, and the old `out`, if there is one, takes its place.

    All files in `fresh` are flushed to disk first. On Linux the swap is one step, so that `out` is a whole
    folder at any moment; elsewhere it is missing for an instant.

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
    """Flushes a file or a folder's names to disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _new_path(folder: Path) -> Path:
    _clear_leftovers(folder)
    return folder / f".polc-{secrets.token_hex(8)}.tmp"


@lru_cache(maxsize=1024)
def _clear_leftovers(folder: Path) -> None:
    """Removes what killed runs left in a folder; once a process for each folder."""
    for path in folder.glob(_LEFTOVERS):
        with suppress(OSError):
            if time.time() - path.lstat().st_mtime < MAX_AGE:
                continue
            if path.is_dir():
                shutil.rmtree(path)  # refuses a link
            else:
                path.unlink()


def _exchanged(one: Path, other: Path) -> bool:
    """Swaps two names in one step (renameat2 of Linux); False where the system cannot."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(rename(*arguments) == 0)


def _exchange_by_steps(fresh: Path, out: Path) -> None:
    old = _new_path(fresh.parent)
    out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        old.rename(out)
        raise
    old.rename(fresh)
