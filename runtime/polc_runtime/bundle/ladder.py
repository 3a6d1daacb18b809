"""Ladders: a folder of bundles of a fixed-rate codec, one for each quality, listed in `ladder.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError, UsageError
from ..files.inputs import read_plain_file
from ..limits import DEFAULT_LIMITS, Limits
from .fields import Fields, parse_json

LADDER = "ladder.json"
FORMAT_VERSION = (1, 0)
"""(major, minor) of `ladder.json` that this runtime writes; a higher major is refused."""

MAX_RUNGS = 256


@dataclass(frozen=True)
class Rung:
    """One bundle of a ladder.

    Attributes:
        quality: that it stands for.
        path: its folder.
    """

    quality: float
    path: Path


@dataclass(frozen=True)
class Ladder:
    """Bundles of one codec at several rates.

    Attributes:
        path: the folder.
        rungs: by rising quality, at least one.
    """

    path: Path
    rungs: tuple[Rung, ...]

    @property
    def qualities(self) -> tuple[float, ...]:
        """Its qualities, rising."""
        return tuple(rung.quality for rung in self.rungs)

    @classmethod
    def load(cls, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Ladder:
        """Reads a ladder; its bundles are opened later.

        Raises:
            BundleError: there is no ladder, or its list is damaged, too large or of a newer format.
        """
        path = Path(path)
        try:
            document = parse_json(read_plain_file(path / LADDER, limits, "max_manifest_bytes").decode())
        except ValueError as error:  # UnicodeDecodeError too
            raise BundleError(f"{path}: {LADDER} is not JSON: {error}") from None
        fields = Fields(document, f"{path}: {LADDER}")
        version = fields.get("format", list)
        if not version or type(version[0]) is not int or version[0] > FORMAT_VERSION[0]:
            raise BundleError(
                f"{path}: the ladder has format {version}, this runtime reads up to 1: upgrade polc"
            )
        rungs = tuple(_rung(path, entry) for entry in fields.sections("bundles"))
        qualities = [rung.quality for rung in rungs]
        if not 1 <= len(rungs) <= MAX_RUNGS or qualities != sorted(set(qualities)):
            raise fields.wrong("bundles", f"not a list of 1 to {MAX_RUNGS} bundles of rising quality")
        return cls(path, rungs)

    def rung(self, quality: float) -> Rung:
        """The bundle of a quality.

        Raises:
            UsageError: there is none; the message lists the qualities there are.
        """
        for rung in self.rungs:
            if rung.quality == quality:
                return rung
        known = ", ".join(f"{value:g}" for value in self.qualities)
        raise UsageError(f"{self.path} has no bundle of quality {quality:g}; there are {known}")


def is_ladder(path: Path) -> bool:
    """Whether a folder is a ladder."""
    return (path / LADDER).is_file()


def ladder_json(rungs: Sequence[tuple[float, str]]) -> str:
    """The text of `ladder.json` for (quality, folder's name), by rising quality."""
    bundles = [{"quality": quality, "path": name} for quality, name in rungs]
    return json.dumps({"format": list(FORMAT_VERSION), "bundles": bundles}, indent=1) + "\n"


def _rung(ladder: Path, fields: Fields) -> Rung:
    name = fields.get("path", str)
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise fields.wrong("path", f"{name!r}, expected the name of a folder in the ladder")
    return Rung(fields.number("quality"), ladder / name)
