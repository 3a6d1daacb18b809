"""Stages of every configuration as stacked bars, with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ...codec.codec import CONTAINER, PIXELS
from ...codec.latent import ENTROPY, SYMBOLS
from ..optional import FIGURE
from .ratios import ANALYSIS, CONTEXT, HYPER, SYNTHESIS, folded
from .stopwatch import OTHER

Facts = Mapping[str, Any]

_COLOURS = {
    PIXELS: "#999999",
    ANALYSIS: "#0072b2",
    "hyper nets": "#56b4e9",
    CONTEXT: "#009e73",
    SYMBOLS: "#f0e442",
    ENTROPY: "#d55e00",
    CONTAINER: "#7f3c00",
    SYNTHESIS: "#cc79a7",
    "task": "#e69f00",
    OTHER: "#dddddd",
}
"""Parts of a bar, in their order."""

_LIGHT = ("hyper nets", SYMBOLS, "task", OTHER)
_TRANSFORMS = (ANALYSIS, SYNTHESIS)
_LIMIT = "GEMM limit of the transform"
_BAR_HEIGHT = 0.7
_BAR_INCHES = 0.6
_INSIDE = 0.06
"""A part of at least this share of the axis has its time written inside."""


def draw_bars(document: Facts, suffix: str) -> bytes:
    """The picture of a document of `polc-bench latency`; `suffix` as in `plot.SUFFIXES`."""
    bars = [(each, operation) for each in document["configurations"] for operation in each["operations"]]
    size = (10, 1.8 + _BAR_INCHES * len(bars))
    figure = FIGURE.load().Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.add_subplot(xlabel="milliseconds, medians")
    axes.set_title(f"{document['bundle']['name']}, {document['machine']['processor']}")
    right = 1.12e3 * max(operation["seconds"]["median"] for _, operation in bars)
    for row, (_, operation) in enumerate(bars):
        _draw_bar(axes, row, operation, right)
    axes.set_yticks(range(len(bars)), [_label(each, operation) for each, operation in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, right)
    axes.grid(True, axis="x", color="0.85")
    axes.set_axisbelow(True)
    _legend(figure, axes)
    stream = io.BytesIO()
    figure.savefig(stream, format=suffix.lower().lstrip("."))
    return stream.getvalue()


def _draw_bar(axes: Any, row: int, operation: Facts, right: float) -> None:
    """A bar as long as the whole's median; its parts are to each other as their own, which are written."""
    parts, whole = _parts(operation), 1e3 * operation["seconds"]["median"]
    scale = whole / sum(parts.values())
    left = 0.0
    for part, median in parts.items():
        width = scale * median
        axes.barh(row, width, _BAR_HEIGHT, left, color=_COLOURS[part], label=part)
        if width > _INSIDE * right:
            box = {"facecolor": _COLOURS[part], "edgecolor": "none", "pad": 1.5}
            place = {"ha": "center", "va": "center", "zorder": 4, "bbox": box}
            axes.text(left + width / 2, row, f"{median:.0f}", color=_ink(part), **place)
        left += width
    axes.text(whole + 0.008 * right, row, f"{whole:.0f}", va="center", weight="bold")
    limits = [stage["limit_seconds"] for stage in operation["stages"] if stage["stage"] in _TRANSFORMS]
    if limits and limits[0]:
        at = 1e3 * limits[0]["median"]
        axes.plot([at, at], [row - 0.46, row + 0.46], color="black", linewidth=2, zorder=3, label=_LIMIT)


def _parts(operation: Facts) -> dict[str, float]:
    """Milliseconds, the medians, of each part of a bar, in the order of `_COLOURS`."""
    sums = dict.fromkeys(_COLOURS, 0.0)
    for stage in folded(operation):
        sums[_part(stage["stage"])] += 1e3 * stage["seconds"]["median"]
    return {part: median for part, median in sums.items() if median > 0}


def _part(stage: str) -> str:
    if stage in HYPER:
        return "hyper nets"
    if stage.startswith("task_"):
        return "task"
    return stage if stage in _COLOURS else OTHER


def _ink(part: str) -> str:
    return "black" if part in _LIGHT else "white"


def _label(each: Facts, operation: Facts) -> str:
    return f"{operation['operation']}\n{each['title']}"


def _legend(figure: Any, axes: Any) -> None:
    """One entry for each part that any bar has, in the order of the parts."""
    handles, labels = axes.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    order = [name for name in (*_COLOURS, _LIMIT) if name in found]
    figure.legend([found[name] for name in order], order, loc="outside lower center", ncols=6, frameon=False)
