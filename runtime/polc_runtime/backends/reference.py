"""The PyTorch model beside a bundle, found by entry point: this package never imports it by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from ..errors import BackendUnavailable
from . import Backend

ENTRY_POINTS = "polc.reference"
_INSTALL = "pip install 'polc[export]'"

ReferenceFactory = Callable[[Path, str, bytes], Backend]
"""Checkpoint, name of a task in the bundle, and the bundle's codec_id -> what runs the graph `task_NAME`."""


def load_reference(checkpoint: Path, task: str, codec_id: bytes) -> Backend:
    """Loads a checkpoint's own model of a task, as a backend that runs the graph `task_NAME`.

    Args:
        checkpoint: the file.
        task: name of the task in the bundle.
        codec_id: of the bundle; the checkpoint's must be the same, since its task reads that codec's latents.

    Raises:
        BackendUnavailable: the PyTorch model is not installed.
        CheckpointError: the file is not a checkpoint of that codec with that task.
    """
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            factory: ReferenceFactory = point.load()
        except ImportError as error:
            missing = error.name or error
            raise BackendUnavailable(
                f"the PyTorch model needs {missing}, which is not installed: {_INSTALL}"
            ) from None
        return factory(checkpoint, task, codec_id)
    raise BackendUnavailable(f"the PyTorch model is not installed: {_INSTALL}")
