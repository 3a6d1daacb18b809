"""JSON files that results are read back from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files.inputs import open_file

MAX_JSON_BYTES = 1 << 28


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        PolcError: the file cannot be read.
        DataError: it is too large, or not JSON.
    """
    with open_file(path) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    if len(text) > MAX_JSON_BYTES:
        raise DataError(f"{path}: is larger than {MAX_JSON_BYTES} bytes")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON: {error}") from None
