"""Training of every stage: images to checkpoints."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import TrainingResult, evaluate, train
    from .jobs.base import Hardware, RunOptions, TrainingData, Validation
    from .jobs.codec import AdversarialTraining, CodecTraining
    from .jobs.vision import AdapterTraining, PixelTraining
    from .log import Listener
    from .plan import PLANS, Plan

__all__ = [
    "PLANS",
    "AdapterTraining",
    "AdversarialTraining",
    "CodecTraining",
    "Hardware",
    "Listener",
    "PixelTraining",
    "Plan",
    "RunOptions",
    "TrainingData",
    "TrainingResult",
    "Validation",
    "evaluate",
    "train",
]

_MODULES = {
    ".api": ("TrainingResult", "evaluate", "train"),
    ".jobs.base": ("Hardware", "RunOptions", "TrainingData", "Validation"),
    ".jobs.codec": ("AdversarialTraining", "CodecTraining"),
    ".jobs.vision": ("AdapterTraining", "PixelTraining"),
    ".log": ("Listener",),
    ".plan": ("PLANS", "Plan"),
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and PyTorch with it, at that moment."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module, __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
