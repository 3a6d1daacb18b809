"""How a hostile or damaged bundle must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from polc_runtime.errors import BundleError


def refused(act: Callable[[], Any]) -> str:
    """What the error says: a `BundleError`, in one line."""
    with pytest.raises(BundleError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message
