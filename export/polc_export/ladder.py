"""Ladders: a folder of bundles of one rate each, between which an encoder's quality chooses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from polc_runtime import Bundle
from polc_runtime.bundle import Ladder
from polc_runtime.bundle.bundle import MANIFEST
from polc_runtime.bundle.ladder import LADDER, ladder_json
from polc_runtime.errors import ExportError, UsageError

from .bundle_folder import GRAPHS, atomic_folder, files_of


def write_ladder(out: Path, bundles: Iterable[Path], link: bool = False, force: bool = False) -> Ladder:
    """Makes a ladder of bundles; it appears whole or not at all.

    Args:
        out: the ladder's folder.
        bundles: folders of bundles of one quality each, no two of the same.
        link: whether files are hard-linked instead of copied; that takes one file system.
        force: whether a ladder at `out` is replaced.

    Raises:
        UsageError: a bundle has a range of qualities, two have the same quality or are the same model, or
            there is none.
        BundleError: a bundle is damaged.
        ExportError: `out` exists and `force` is off, or is something else than a ladder; or a file cannot be
            linked.
    """
    rungs = _rungs([Bundle.load(path) for path in bundles])
    names = {quality: f"q{quality:g}" for quality in rungs}
    with atomic_folder(out, force, LADDER) as folder:
        for quality, bundle in rungs.items():
            _copy(bundle, folder / names[quality], link)
        (folder / LADDER).write_text(ladder_json(list(names.items())), "utf-8")
    return Ladder.load(out)


def _rungs(bundles: Sequence[Bundle]) -> dict[float, Bundle]:
    """The bundles by their qualities, in order."""
    rungs: dict[float, Bundle] = {}
    for bundle in bundles:
        low, high = bundle.manifest.quality_range
        if low < high:
            raise UsageError(
                f"{bundle.path} has the qualities {low:g} to {high:g}: a ladder holds bundles of one each"
            )
        if low in rungs:
            raise UsageError(
                f"{rungs[low].path} and {bundle.path} both have the quality {low:g}: export them with the "
                "quality of the ladder that each is (quality=...)"
            )
        for other in rungs.values():
            if other.manifest.fingerprint == bundle.manifest.fingerprint:
                raise UsageError(
                    f"{other.path} and {bundle.path} are one model: their files could not be told apart"
                )
        rungs[int(low) if low == int(low) else low] = bundle
    if not rungs:
        raise UsageError("a ladder needs bundles: none is named")
    return dict(sorted(rungs.items()))


def _copy(bundle: Bundle, folder: Path, link: bool) -> None:
    """Copies or links a bundle as it is, every file checked against its hash."""
    (folder / GRAPHS).mkdir(parents=True)
    (folder / MANIFEST).write_bytes((bundle.path / MANIFEST).read_bytes())
    for stored in files_of(bundle.manifest):
        data = bundle.read(stored.file, stored.sha256)
        if not link:
            (folder / stored.file).write_bytes(data)
            continue
        try:
            os.link(bundle.path / stored.file, folder / stored.file)
        except OSError as error:
            raise ExportError(
                f"{bundle.path / stored.file} cannot be linked ({error.strerror}): copy the bundles instead"
            ) from None
