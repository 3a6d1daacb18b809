"""Exports checkpoints of codecs to bundles of ONNX graphs, and proves them equal to the PyTorch model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import ExportResult, default_bundle_path, export_bundle
    from .extend import extend_bundle
    from .ladder import write_ladder
    from .options import ExportOptions, Formats, Stage2, TaskOptions, VariantSource

_HOMES = {
    "ExportOptions": "options",
    "ExportResult": "export",
    "Formats": "options",
    "Stage2": "options",
    "TaskOptions": "options",
    "VariantSource": "options",
    "default_bundle_path": "export",
    "export_bundle": "export",
    "extend_bundle": "extend",
    "write_ladder": "ladder",
}
__all__ = [
    "ExportOptions",
    "ExportResult",
    "Formats",
    "Stage2",
    "TaskOptions",
    "VariantSource",
    "default_bundle_path",
    "export_bundle",
    "extend_bundle",
    "write_ladder",
]


def __getattr__(name: str) -> Any:
    """Imports a module of the exporter, and torch where that needs it, on first use: `--help` is instant."""
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
