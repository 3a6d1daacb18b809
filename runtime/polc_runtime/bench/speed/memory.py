"""How much memory this process holds, and held at most."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def reset_peak() -> bool:
    """Forgets the peak so far; False where the system refuses, so that a peak is of the whole process."""
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)
        return True
    return False


def peak_bytes() -> int | None:
    """The most resident memory since `reset_peak`, or since the process started; None where nobody tells."""
    found = _status("VmHWM")
    return _lifetime_peak() if found is None else found


def resident_bytes() -> int | None:
    """Resident memory now; None where nobody tells."""
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        match = re.search(rf"^{field}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(match[1]) if match else None


def _lifetime_peak() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
