"""Curves over the rate, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, UsageError

SUFFIXES = (".png", ".svg", ".pdf")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_WIDEN = 1.25


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: in the legend.
        x: rates.
        y: values.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Plot:
    """What a plot shows.

    Attributes:
        title: above.
        unit: of the values, beside the axis.
        lines: the first is the one that matters; where others go much further, its range is shown.
        levels: horizontal lines: label and value.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()


def check_plot(path: Path) -> None:
    """Checks before a measurement that its plot can be drawn.

    Raises:
        UsageError: the suffix is none of `SUFFIXES`.
        BackendUnavailable: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: plots are written as one of {' '.join(SUFFIXES)}")
    _figure_module()


def draw(plot: Plot, suffix: str) -> bytes:
    """The file of a plot; `suffix` is one of `SUFFIXES`.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    figure = _figure_module().Figure(figsize=(8, 5.5), dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel="bits per pixel", ylabel=plot.unit)
    axes.set_title(plot.title)
    for index, line in enumerate(plot.lines):
        _draw_line(axes, line, index)
    for index, (label, value) in enumerate(plot.levels, len(plot.lines)):
        axes.axhline(value, color=_COLOURS[index % len(_COLOURS)], linestyle="--", label=label)
    _focus(axes, plot)
    axes.grid(True, color="0.85")
    axes.set_axisbelow(True)
    axes.legend(loc="best")
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix.lower().lstrip("."))
    return stream.getvalue()


def _figure_module() -> Any:
    try:
        return import_module("matplotlib.figure")
    except ImportError as error:
        raise BackendUnavailable(
            f"a plot needs {error.name or error}, which is not installed: pip install 'polc[bench]'"
        ) from None


def _draw_line(axes: Any, line: Line, index: int) -> None:
    axes.plot(
        line.x,
        line.y,
        color=_COLOURS[index % len(_COLOURS)],
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=6 if index == 0 else 4,
        linewidth=2.2 if index == 0 else 1.3,
        zorder=3 if index == 0 else 2,
        label=line.label,
    )


def _focus(axes: Any, plot: Plot) -> None:
    """Shows the range of the first line, and the whole of the others within it."""
    right = _WIDEN * max(plot.lines[0].x)
    shown = [y for line in plot.lines for x, y in zip(line.x, line.y, strict=True) if x <= right]
    shown += [value for _, value in plot.levels]
    margin = 0.05 * (max(shown) - min(shown)) or 0.5
    axes.set_xlim(0, min(right, 1.05 * max(x for line in plot.lines for x in line.x)))
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
