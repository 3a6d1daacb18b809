"""Rows as lines of text, in columns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from .console import printable


def aligned(rows: Iterable[Sequence[str]], left: Collection[int] = ()) -> str:
    """Rows as indented lines, columns two spaces apart, each as wide as its longest cell.

    Args:
        rows: of equal length.
        left: numbers of the columns aligned to the left, as text is; the others are to the right.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  "
        + "  ".join(
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def facts_table(facts: Mapping[str, Any]) -> str:
    """Facts as indented lines of names and values."""
    return aligned([(name, _text(value)) for name, value in facts.items()], left=(0, 1))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
