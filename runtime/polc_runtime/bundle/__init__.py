"""Bundles: the folder of graphs, tables and manifest that a codec is deployed as."""

from .bundle import Bundle, find_bundle
from .fields import Axes
from .manifest import FORMAT_VERSION, GraphFile, Manifest
from .tasks import CLASSIFICATION, SEGMENTATION, Preprocessing, SizeRule, Task

__all__ = [
    "CLASSIFICATION",
    "FORMAT_VERSION",
    "SEGMENTATION",
    "Axes",
    "Bundle",
    "GraphFile",
    "Manifest",
    "Preprocessing",
    "SizeRule",
    "Task",
    "find_bundle",
]
