"""What validations are made of: checks with limits, a photo to run on, and how an error is measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polc_runtime.backends import Backend, FloatArray
from polc_runtime.errors import ExportError
from polc_runtime.pictures.images import Pixels, read_image

TOLERANCE = 1e-4
"""Largest error of an output, in units of its standard deviation where that is above 1."""

Report = Callable[[str], None]
"""Takes a line of progress at a time."""


@dataclass
class Check:
    """One line of a validation report.

    Attributes:
        name: what was compared.
        error: largest error found.
        limit: largest error allowed.
        cases: comparisons made.
        unit: of error and limit.
    """

    name: str
    limit: float
    unit: str
    error: float = 0.0
    cases: int = 0

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit, NaN being outside."""
        return self.error <= self.limit

    def add(self, error: float) -> None:
        """Takes one more comparison into account."""
        self.error = error if error != error else max(self.error, error)
        self.cases += 1

    def line(self) -> str:
        """For people, marked."""
        mark = "ok  " if self.passed else "FAIL"
        measured = f"{self.error:.2g} {self.unit}, limit {self.limit:.2g}"
        return f"{mark} {self.name}: {measured} ({self.cases} cases)"

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "passed": self.passed}


@dataclass
class Agreement(Check):
    """A check that counts predictions: `error` is the share of them that differ, in the worst case."""

    def line(self) -> str:
        """For people, marked."""
        mark = "ok  " if self.passed else "FAIL"
        measured = f"{100 * (1 - self.error):.6g} %, least {100 * (1 - self.limit):.6g} %"
        return f"{mark} {self.name}: {measured} ({self.cases} cases)"


@dataclass
class Least(Check):
    """A check of what must not be too small: `error` is the smallest value found."""

    error: float = math.inf

    @property
    def passed(self) -> bool:
        """Whether the value reaches the limit, NaN not doing so."""
        return self.error >= self.limit

    def add(self, error: float) -> None:
        """Takes one more value into account."""
        self.error = error if error != error else min(self.error, error)
        self.cases += 1

    def line(self) -> str:
        """For people, marked."""
        mark = "ok  " if self.passed else "FAIL"
        return (
            f"{mark} {self.name}: {self.error:.4g} {self.unit}, least {self.limit:.4g} ({self.cases} cases)"
        )


class Checks(dict[str, Check]):
    """Checks by name, made when they are first added to.

    Args:
        prefix: put before every name.
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self.prefix = prefix

    def add(self, name: str, error: float, limit: float = TOLERANCE, unit: str = "std") -> None:
        """Takes one comparison into account."""
        name = self.prefix + name
        self.setdefault(name, Check(name, limit, unit)).add(error)

    def add_agreement(self, name: str, differing: float, limit: float = 0.0) -> None:
        """Takes one comparison of predictions into account, of which a share may differ, usually none."""
        name = self.prefix + name
        self.setdefault(name, Agreement(name, limit, "of all differ")).add(differing)

    def add_least(self, name: str, value: float, limit: float, unit: str) -> None:
        """Takes one value into account that must not be under the limit."""
        name = self.prefix + name
        self.setdefault(name, Least(name, limit, unit)).add(value)

    def require(self) -> tuple[Check, ...]:
        """All checks.

        Raises:
            ExportError: one of them missed its limit.
        """
        if failed := [check.line() for check in self.values() if not check.passed]:
            raise ExportError(f"the bundle is not equal to the model: {'; '.join(failed)}")
        return tuple(self.values())


def require_passed(checks: Checks, report: Report) -> tuple[Check, ...]:
    """All checks, each reported in a line.

    Raises:
        ExportError: one of them missed its limit.
    """
    for check in checks.values():
        report(check.line())
    return checks.require()


def named_checks(backend: Backend | None) -> Checks:
    """No checks yet; their names will begin with the backend's, unless it is None: ONNX Runtime."""
    return Checks() if backend is None else Checks(f"{backend.name} ")


def sample_photo(path: Path | None = None) -> Pixels:
    """A photo to validate on, uint8 [H,W,3]: the given file, or the portrait that matplotlib carries.

    Raises:
        ExportError: no file is given, and matplotlib is not installed.
    """
    if path is not None:
        return read_image(path).pixels
    try:
        import matplotlib.cbook
    except ImportError:
        raise ExportError(
            "matplotlib, which carries the photo to validate on, is not installed: name another (photo=PATH)"
        ) from None
    return read_image(Path(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))).pixels


def crop(photo: Pixels, height: int, width: int) -> Pixels:
    """The upper left part of a photo, its last row and column repeated where it is too small."""
    short = [(0, max(0, size - have)) for size, have in zip((height, width), photo.shape, strict=False)]
    return np.pad(photo, (*short, (0, 0)), mode="edge")[:height, :width]


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    """Largest difference, in units of the expected values' standard deviation where that is above 1."""
    if found.shape != expected.shape:
        return float("nan")
    return float(np.abs(found - expected).max() / max(1.0, float(expected.std())))
