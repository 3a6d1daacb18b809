"""Every error that polc raises for its user, and the `kind` that programs tell them apart by.

The kinds are the same words in Python, in the `--json` of commands, in HTTP answers and in libpolc's status
codes. The errors of `polc`, `polc_export` and `polc_training` are here too, so that one base catches all.
"""

from __future__ import annotations

from typing import ClassVar

KINDS = (
    "usage",
    "image",
    "not_polc",
    "version",
    "truncated",
    "damaged",
    "limit",
    "wrong_model",
    "drift",
    "bundle",
    "checkpoint",
    "backend_unavailable",
    "resources",
    "interrupted",
    "internal",
)
"""Every kind of error, `internal` for faults of polc. Programs may rely on these words; new ones may come."""


class PolcError(Exception):
    """Base of all errors a user can cause; the message is one line that says what to do.

    Attributes:
        kind: one of `KINDS`.
    """

    kind: ClassVar[str] = "usage"


class UsageError(PolcError):
    """Arguments that do not fit together, are out of range, or name files that cannot be used."""


class ImageError(PolcError):
    """A file that is not an image, or an image that cannot be coded."""

    kind = "image"


class LimitError(PolcError):
    """Input that is larger than the limits allow; raised as one of its children."""

    kind = "limit"


class ImageLimitError(LimitError, ImageError):
    """An image with more pixels or a longer side than the limits allow."""


class BitstreamError(PolcError):
    """A `.polc` file that cannot be decoded: damaged, in this class itself, or as its children say."""

    kind = "damaged"


class NotPolcError(BitstreamError):
    """Bytes that are not a `.polc` file."""

    kind = "not_polc"


class VersionError(BitstreamError):
    """A `.polc` file of a bitstream version that this release does not read."""

    kind = "version"


class TruncatedError(BitstreamError):
    """A `.polc` file that ends too early."""

    kind = "truncated"


class BitstreamLimitError(LimitError, BitstreamError):
    """A `.polc` file that is larger than the limits allow, or announces such an image."""


class WrongModelError(BitstreamError):
    """A `.polc` file that was made with another model than the bundle's."""

    kind = "wrong_model"


class DriftError(BitstreamError):
    """A `.polc` file whose symbols decode differently here than where they were encoded."""

    kind = "drift"


class BundleError(PolcError):
    """A bundle that is missing, damaged, or of a version this runtime does not read."""

    kind = "bundle"


class NotFiniteError(BundleError):
    """A graph that gave scales or means that are not finite."""


class CheckpointError(PolcError):
    """A checkpoint with missing, unknown or wrongly shaped weights."""

    kind = "checkpoint"


class DataError(PolcError):
    """Training or evaluation data that are missing, unreadable, or of another layout."""


class ExportError(PolcError):
    """An export that could not be made, or that failed its validation."""

    kind = "bundle"


class BackendUnavailable(PolcError):
    """A backend that cannot run here; the message gives the reason and what to install."""

    kind = "backend_unavailable"


class ResourceError(PolcError):
    """Memory, disk space or another resource of the system that ran out."""

    kind = "resources"


class Interrupted(PolcError):
    """Work that was stopped before it was done."""

    kind = "interrupted"


FAILURES = (PolcError, OSError, MemoryError)
"""What one item of many may fail with, while the others go on."""


def error_kind(error: BaseException) -> str:
    """The kind of any error, one of `KINDS`: the error's own, or what an error of Python's stands for."""
    if isinstance(error, PolcError):
        return error.kind
    if isinstance(error, MemoryError):
        return ResourceError.kind
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.kind
    return UsageError.kind if isinstance(error, OSError) else "internal"


class CodecMismatchWarning(UserWarning):
    """A file decodes, but was made with another synthesis than the bundle's."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's kind where it has none."""
    return str(error).partition("\n")[0].strip() or type(error).__name__
