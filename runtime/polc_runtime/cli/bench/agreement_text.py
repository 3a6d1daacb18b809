"""Agreement as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .text import aligned


def agreement_text(document: Mapping[str, Any]) -> str:
    """The document of `polc-bench agreement`, in lines."""
    names = [entry["setting"] for entry in document["settings"]]
    files = document["files_of_each"]
    parts = [
        f"{document['bundle']}: {len(names)} settings, {files} files of each, decoded with all\n"
        + "\n".join(f"  {number}  {name}" for number, name in enumerate(names)),
        _matrix("lost without calibration, by encoder and decoder", document["lost_without_calibration"]),
        _matrix("lost with calibration", document["lost"]),
        _steps(document),
        _costs(document["qualities"]),
    ]
    return "\n\n".join(parts)


def _matrix(title: str, lost: Sequence[Sequence[int]]) -> str:
    heading = ["encoder", *(f"by {column}" for column in range(len(lost)))]
    rows = [[str(index), *map(str, row)] for index, row in enumerate(lost)]
    total = sum(map(sum, lost))
    return f"{title}: {total}\n{aligned([heading, *rows])}"


def _steps(document: Mapping[str, Any]) -> str:
    """Differences by quality and coding step, and the exponents."""
    parts = []
    for found, proposed in zip(document["qualities"], document["proposed_tolerances"], strict=True):
        rows = [
            ["coding step", *map(str, range(len(found["scale_difference"])))],
            ["scales, relative", *(f"{value:.1e}" for value in found["scale_difference"])],
            ["means", *(f"{value:.1e}" for value in found["mean_difference"])],
            ["exponents used", *map(str, found["exponents"])],
            ["proposed", *map(str, proposed["exponents"])],
        ]
        parts.append(f"  at quality {found['quality']:g}\n{aligned(rows)}")
    title = (
        f"largest differences between any two; proposed tolerances 2^-N, {document['margin']:g} times that"
    )
    return "\n".join([title, *parts])


def _costs(qualities: Sequence[Mapping[str, float]]) -> str:
    rows = [["quality", "bytes", "of all files", "at most"]]
    for found in qualities:
        rows.append(
            [
                f"{found['quality']:g}",
                f"{found['calibration_bytes']:.1f}",
                f"{100 * found['calibration_share']:.3f} %",
                f"{100 * found['largest_calibration_share']:.3f} %",
            ]
        )
    return f"the calibration's cost, by the first setting\n{aligned(rows)}"
