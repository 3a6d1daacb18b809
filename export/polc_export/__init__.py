"""Exports POLC checkpoints to bundles of ONNX graphs, and proves them equal to the PyTorch model."""

from .export import ExportOptions, ExportResult, default_bundle_path, export_bundle

__all__ = ["ExportOptions", "ExportResult", "default_bundle_path", "export_bundle"]
