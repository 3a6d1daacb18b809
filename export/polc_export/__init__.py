"""Exports POLC checkpoints to bundles of ONNX graphs, and proves them equal to the PyTorch model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import ExportOptions, ExportResult, default_bundle_path, export_bundle
    from .extend import extend_bundle
    from .formats import Variants
    from .tasks import Stage2, TaskOptions

_HOMES = {
    "ExportOptions": "export",
    "ExportResult": "export",
    "Stage2": "tasks",
    "TaskOptions": "tasks",
    "Variants": "formats",
    "default_bundle_path": "export",
    "export_bundle": "export",
    "extend_bundle": "extend",
}
__all__ = [
    "ExportOptions",
    "ExportResult",
    "Stage2",
    "TaskOptions",
    "Variants",
    "default_bundle_path",
    "export_bundle",
    "extend_bundle",
]


def __getattr__(name: str) -> Any:
    """Imports a module of the exporter, and torch where that needs it, on first use: `--help` is instant."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
