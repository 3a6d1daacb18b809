"""How many threads to use: `POLC_THREADS`, else the processors that the system lets this process use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError
from .limits import MAX_THREADS, whole_number

VARIABLE = "POLC_THREADS"
"""Environment variable: the number of threads wherever none is given."""


@dataclass(frozen=True)
class Processors:
    """The processors that the system lets this process use.

    Attributes:
        present: processors of the machine.
        affinity: those that the process may run on.
        quota: the time its control group may use, in processors; None for no bound.
    """

    present: int
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """The smaller of the two bounds, rounded up: at least 1."""
        return self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota))

    def __str__(self) -> str:
        quota = "no CPU quota" if self.quota is None else f"a CPU quota of {self.quota:g}"
        return f"may run on {self.affinity} of {self.present} processors, {quota}"


def processors(root: Path = Path("/")) -> Processors:
    """Counts the processors.

    Args:
        root: of the file system, where /proc and /sys are.
    """
    present = os.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    return Processors(present, affinity, min(_quotas(root), default=None))


def chosen_threads(environment: Mapping[str, str] = os.environ) -> int | None:
    """The number in `POLC_THREADS`; None where it is not set.

    Raises:
        UsageError: it is not a whole number from 1 to `MAX_THREADS`.
    """
    text = environment.get(VARIABLE)
    threads = whole_number(VARIABLE, text) if text else None
    if threads is not None and threads > MAX_THREADS:
        raise UsageError(f"{VARIABLE} is {threads}, expected a whole number from 1 to {MAX_THREADS}")
    return threads


def default_threads() -> int:
    """The number of threads where none is given.

    Raises:
        UsageError: `POLC_THREADS` is not a positive whole number.
    """
    return chosen_threads() or processors().usable


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas of this process's control groups and of the groups above them, in processors."""
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in [mounts / controllers] if controllers else [mounts, mounts / "unified"]:
            group = mount / path.lstrip("/")
            for folder in (group, *group.parents[: len(group.parts) - len(mount.parts)]):
                yield from _quota(folder)


def _quota(group: Path) -> Iterator[float]:
    """The quota of one control group, of version 2 or 1, if it has one."""
    text = _read(group / "cpu.max") or " ".join(
        _read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    )
    words = text.split()
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):  # not "max", not -1
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
