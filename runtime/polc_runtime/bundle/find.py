"""Finding a bundle: by path, by the name of a packaged one, or by the fingerprint in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import BundleError, PolcError, WrongModelError
from ..files.inputs import read_plain_file
from ..limits import DEFAULT_LIMITS, Limits
from .fields import Fields, parse_json
from .ladder import Ladder, is_ladder

MANIFEST = "manifest.json"
ENVIRONMENT = "POLC_BUNDLE"
FOLDERS = "POLC_BUNDLES"
"""The environment variable that lists folders of bundles, as `PATH` lists folders of programs."""
PACKAGED = Path(__file__).resolve().parent.parent / "bundles"
"""Where the bundles inside this package lie, a folder each."""
DEFAULT_BUNDLE = "nano"


def packaged_bundles() -> list[str]:
    """Names of the bundles inside this package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{MANIFEST}"))


def uses_default(bundle: str | Path | None) -> bool:
    """Whether neither the argument nor `$POLC_BUNDLE` names a bundle, so that the default is taken."""
    return bundle is None and not os.environ.get(ENVIRONMENT)


def find_bundle(bundle: str | Path | None) -> Path:
    """The folder of a bundle given by path or by the name of a packaged one.

    Args:
        bundle: path or name; None for `$POLC_BUNDLE`, else the packaged bundle `DEFAULT_BUNDLE`.

    Raises:
        BundleError: there is none, or it is a ladder; the message says which packaged ones there are.
    """
    path = find_folder(bundle)
    if is_ladder(path):
        raise BundleError(f"{path} is a ladder of bundles, where one bundle is needed: name one inside it")
    return path


def find_folder(bundle: str | Path | None) -> Path:
    """As `find_bundle`, but for a ladder too.

    Raises:
        BundleError: there is neither.
    """
    if bundle == "":
        raise BundleError("the bundle's name is empty")
    chosen = DEFAULT_BUNDLE if uses_default(bundle) else bundle or os.environ[ENVIRONMENT]
    path = Path(chosen)
    if str(chosen) in packaged_bundles() and not path.exists():
        return PACKAGED / chosen
    if not path.is_dir():
        reason = "it is a file" if path.exists() else f"no such folder, and {_packaged_names()}"
        raise BundleError(f"{path} is not a bundle: {reason}")
    if not (path / MANIFEST).is_file() and not is_ladder(path):
        raise BundleError(f"{path} is not a bundle: it has no {MANIFEST}")
    return path


def known_bundles() -> Iterator[Path]:
    """Folders of the packaged bundles, and of those in the folders that `$POLC_BUNDLES` lists, in order.

    A listed folder may be a bundle or a ladder itself; otherwise those directly inside it count. Each is
    given once, by its path without links.
    """
    listed = [Path(name) for name in os.environ.get(FOLDERS, "").split(os.pathsep) if name]
    seen: set[Path] = set()
    for folder in [PACKAGED, *listed]:
        for bundle in _bundles_in(folder):
            real = bundle.resolve()
            if real not in seen:
                seen.add(real)
                yield bundle


def find_by_fingerprint(fingerprint: bytes, limits: Limits = DEFAULT_LIMITS) -> Path:
    """The folder of the bundle that decodes a file.

    Args:
        fingerprint: the 8 bytes in the file's header.
        limits: largest manifest that is read.

    Raises:
        WrongModelError: no bundle has that fingerprint; the message says where was looked, and which bundles
            could not be read.
    """
    unreadable = []
    count = 0
    for bundle in known_bundles():
        count += 1
        try:
            if fingerprint_of(bundle, limits).startswith(fingerprint):
                return bundle
        except BundleError as error:
            unreadable.append(str(error))
    skipped = f" ({len(unreadable)} of them cannot be read: {unreadable[0]})" if unreadable else ""
    raise WrongModelError(
        f"no bundle has the fingerprint {fingerprint.hex()} of this file: {count} were looked at{skipped}, "
        f"the packaged ones and those in the folders of ${FOLDERS}; name the file's bundle, or add its "
        "folder there"
    )


def fingerprint_of(bundle: Path, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The fingerprint of a bundle, 32 bytes; nothing else of its manifest is looked at.

    Raises:
        BundleError: the manifest cannot be read.
    """
    try:
        text = read_plain_file(bundle / MANIFEST, limits, "max_manifest_bytes").decode()
        return Fields(parse_json(text), f"{bundle}: {MANIFEST}").digest("fingerprint")
    except ValueError as error:  # UnicodeDecodeError too
        raise BundleError(f"{bundle}: {MANIFEST} is not JSON: {error}") from None
    except BundleError:
        raise
    except PolcError as error:
        raise BundleError(str(error)) from None


def _bundles_in(folder: Path) -> Iterator[Path]:
    """A folder itself if it is a bundle, the bundles of a ladder, or those of what lies inside it."""
    if (folder / MANIFEST).is_file():
        yield folder
    elif is_ladder(folder):
        yield from _rungs(folder)
    else:
        try:
            inside = sorted(folder.iterdir())
        except OSError:
            return
        for path in inside:
            if (path / MANIFEST).is_file():
                yield path
            elif is_ladder(path):
                yield from _rungs(path)


def _rungs(folder: Path) -> list[Path]:
    """The bundles of a ladder; none of one that cannot be read."""
    try:
        return [rung.path for rung in Ladder.load(folder).rungs]
    except PolcError:
        return []


def _packaged_names() -> str:
    names = packaged_bundles()
    if not names:
        return "none comes with this installation"
    return f"not one of the packaged bundles ({', '.join(names)})"
