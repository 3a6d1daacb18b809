"""Exports POLC checkpoints to bundles of ONNX graphs, and proves them equal to the PyTorch model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import ExportOptions, ExportResult, default_bundle_path, export_bundle
    from .tasks import Stage2, TaskOptions

__all__ = ["ExportOptions", "ExportResult", "Stage2", "TaskOptions", "default_bundle_path", "export_bundle"]


def __getattr__(name: str) -> Any:
    """Imports the exporter, and torch with it, on first use: `polc-export --help` is instant."""
    if name in __all__:
        from . import export

        return getattr(export, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
