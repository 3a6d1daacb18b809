"""Every error this project raises for its user: one base class, one child for each kind of fault."""


class PolcError(Exception):
    """Base of all errors a user can cause; the message is one line that says what to do."""


class UsageError(PolcError):
    """Options or arguments that do not fit together or are out of range."""


class ImageError(PolcError):
    """A file that is not an image, or an image that cannot be coded."""


class BitstreamError(PolcError):
    """A `.polc` file that is damaged, truncated, hostile, or made with another bundle."""


class BundleError(PolcError):
    """A bundle that is missing, damaged, or of a version this runtime does not read."""


class CheckpointError(PolcError):
    """A checkpoint with missing, unknown or wrongly shaped weights."""


class DataError(PolcError):
    """Training or evaluation data that are missing, unreadable, or of another layout."""


class ExportError(PolcError):
    """An export that could not be made, or that failed its validation."""


class BackendUnavailable(PolcError):
    """A backend that cannot run here; the message gives the reason and what to install."""


FAILURES = (PolcError, OSError, MemoryError)
"""What one item of many may fail with, while the others go on."""


class CodecMismatchWarning(UserWarning):
    """A file decodes, but was made with another synthesis than the bundle's."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, or the error's kind where it has none."""
    return str(error).partition("\n")[0].strip() or type(error).__name__
