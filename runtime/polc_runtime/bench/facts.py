"""What made a result: versions and machine, as every JSON document of `polc-bench` says them."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import PIL

from .. import __version__


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
