"""What all options of training share: they check themselves when they are made."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from polc_runtime.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Options that check themselves.

    `CHOICES` has the values that a field may have, `BOUNDS` its least one; None is always allowed.

    Raises:
        UsageError: a field has another value.
    """

    CHOICES: ClassVar[Mapping[str, Collection[str]]] = {}
    BOUNDS: ClassVar[Mapping[str, float]] = {}

    def __post_init__(self) -> None:
        for name, choices in self.CHOICES.items():
            if (value := getattr(self, name)) not in (None, *choices):
                raise UsageError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
        for name, least in self.BOUNDS.items():
            if (value := getattr(self, name)) is not None and not value >= least:
                raise UsageError(f"{name}: expected {least} or more, got {value}")
