"""What made a result: versions and machine, as every JSON document of `polc-bench` says them."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from .._version import __version__
from ..processors import VARIABLE, chosen_threads, processors

_CPU_INFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def tool_facts() -> dict[str, Any]:
    """Versions of what measured, and the machine."""
    return {
        "polc": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
    }


def machine_facts() -> dict[str, Any]:
    """The processor: model, how many this process may use, frequency governor; None for what is not known.

    `threads` is the default number of threads, and `threads_because` says where it comes from. `load` is the
    number of runnable processes, averaged over the last minute: of all users of the machine.
    """
    found, chosen = processors(), chosen_threads()
    match = re.search(r"^model name\s*:\s*(.+)$", _read(_CPU_INFO), re.MULTILINE)
    return {
        "processor": match[1].strip() if match else platform.processor() or None,
        "architecture": platform.machine(),
        "processors": found.present,
        "usable_processors": found.usable,
        "threads": chosen or found.usable,
        "threads_because": f"{VARIABLE}={chosen}" if chosen else str(found),
        "governor": _read(_GOVERNOR).strip() or None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
