"""Pictures that are left out of a measurement, and why."""

from __future__ import annotations

from collections.abc import Iterable

from ..cli.console import fail
from ..files.inputs import Source, explain

Failure = dict[str, str]
"""`image`, `error`, and `codec` where others could measure the picture."""


def failure(source: Source, error: Exception, codec: str | None = None) -> Failure:
    """A picture that an error stands in the way of, one of `cli.runner.FAILURES`."""
    message = str(explain(error) if isinstance(error, OSError) else error) or "not enough memory"
    entry = {"image": source.name, "error": message.removeprefix(f"{source.name}: ")}
    return entry if codec is None else {**entry, "codec": codec}


def list_failures(failures: Iterable[Failure]) -> None:
    """Prints a line for each."""
    for entry in failures:
        codec = f" ({entry['codec']})" if "codec" in entry else ""
        fail(f"{entry['image']}: {entry['error']}{codec}")
