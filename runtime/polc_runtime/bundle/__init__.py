"""Bundles: the folder of graphs, tables and manifest that a codec is deployed as."""

from .bundle import Bundle, find_bundle
from .manifest import FORMAT_VERSION, Axes, GraphFile, Manifest

__all__ = ["FORMAT_VERSION", "Axes", "Bundle", "GraphFile", "Manifest", "find_bundle"]
