"""Bundles: the folder of graphs, tables and manifest that a codec is deployed as."""

from .bundle import Bundle
from .fields import Axes
from .find import find_bundle, find_by_fingerprint
from .ladder import Ladder
from .manifest import (
    FORMAT_VERSION,
    FORMATS,
    TENSORRT,
    TENSORRT_PLUGIN,
    TORCHSCRIPT,
    GraphFile,
    Manifest,
    StoredFile,
    Variant,
)
from .tasks import CLASSIFICATION, SEGMENTATION, Preprocessing, SizeRule, Task

__all__ = [
    "CLASSIFICATION",
    "FORMATS",
    "FORMAT_VERSION",
    "SEGMENTATION",
    "TENSORRT",
    "TENSORRT_PLUGIN",
    "TORCHSCRIPT",
    "Axes",
    "Bundle",
    "GraphFile",
    "Ladder",
    "Manifest",
    "Preprocessing",
    "SizeRule",
    "StoredFile",
    "Task",
    "Variant",
    "find_bundle",
    "find_by_fingerprint",
]
