"""Where the shared reference data lies: `../shared`, or `$POLC_SHARED`. Tests skip where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("POLC_SHARED", REPOSITORY.parent / "shared"))
