"""The torch-free runtime of polc: bundles of graphs, `.polc` files, pixels.

>>> from polc_runtime import Codec  # doctest: +SKIP
>>> with Codec.load("my.bundle") as codec:
...     data = codec.compress(image, quality=4)
...     image = codec.decompress(data)
"""

from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import (
    BackendUnavailable,
    BitstreamError,
    BundleError,
    CheckpointError,
    CodecMismatchWarning,
    ExportError,
    ImageError,
    PolcError,
    UsageError,
)

if TYPE_CHECKING:
    from .bundle import Bundle
    from .codec import Codec

__all__ = [
    "BackendUnavailable",
    "BitstreamError",
    "Bundle",
    "BundleError",
    "CheckpointError",
    "Codec",
    "CodecMismatchWarning",
    "ExportError",
    "ImageError",
    "PolcError",
    "UsageError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Imports `Codec` and `Bundle` on first use, so that `polc --help` is instant."""
    if name == "Codec":
        from .codec import Codec

        return Codec
    if name == "Bundle":
        from .bundle import Bundle

        return Bundle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
