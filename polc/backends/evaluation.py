"""Evaluation mode for as long as a model is run, in any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

_lock = threading.Lock()
_users: dict[nn.Module, int] = {}
"""Modules that were in training mode, and how many callers have them in evaluation mode now."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Puts a module and all its parts in evaluation mode, inside.

    Afterwards each part has its own mode again. Where several threads run a model, the last to leave
    restores it.
    """
    with _lock:
        changed = [part for part in module.modules() if part.training or part in _users]
        for part in changed:
            _users[part] = _users.get(part, 0) + 1
            part.training = False
    try:
        yield
    finally:
        with _lock:
            for part in changed:
                _users[part] -= 1
                if not _users[part]:
                    del _users[part]
                    part.training = True
