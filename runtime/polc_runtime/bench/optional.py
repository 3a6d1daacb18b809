"""Packages that only some measurements need, imported when they are."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..errors import BackendUnavailable


@dataclass(frozen=True)
class OptionalPackage:
    """A package that need not be there.

    Attributes:
        module: what is imported.
        purpose: what needs it, the subject of the error's sentence.
        install: what pip is told.
    """

    module: str
    purpose: str
    install: str

    def load(self) -> Any:
        """The module.

        Raises:
            BackendUnavailable: it, or what it needs itself, is not installed; the message says how to.
        """
        try:
            return import_module(self.module)
        except ImportError as error:
            missing = error.name or self.module
            raise BackendUnavailable(
                f"{self.purpose} needs {missing}, which is not installed: pip install {self.install}"
            ) from None


BJONTEGAARD = OptionalPackage("bjontegaard", "a BD-rate", "bjontegaard")
FIGURE = OptionalPackage("matplotlib.figure", "--plot", "matplotlib")
