"""Tables of numbers, as text and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..console import printable
from ..tables import aligned

if TYPE_CHECKING:
    from ...bench.quality.comparison import Comparison, Delta, Difference, Level
    from ...bench.quality.curves import Column, Columns, Curve

MISSING = "-"

_FORMATS = {
    "quality": ("quality", "g", 1),
    "bpp": ("bpp", ".4f", 1),
    "psnr-rgb": ("PSNR dB", ".3f", 1),
    "ms-ssim-rgb": ("MS-SSIM", ".5f", 1),
    "lpips-vgg": ("LPIPS", ".4f", 1),
    "bytes": ("bytes", ".0f", 1),
    "payload_bytes": ("payload", ".0f", 1),
    "overhead_bytes": ("overhead", ".0f", 1),
    "estimated_bpp": ("estimated", ".4f", 1),
    "encoding_time": ("encode s", ".3f", 1),
    "decoding_time": ("decode s", ".3f", 1),
    "top-1": ("top-1 %", ".2f", 100),
    "top-5": ("top-5 %", ".2f", 100),
    "miou": ("mIoU %", ".2f", 100),
    "pixel-accuracy": ("pixel acc. %", ".2f", 100),
    "agreement": ("agreement %", ".3f", 100),
}
"""Heading, number format and factor of the numbers that are known; others are shown by name."""


def columns_text(columns: Mapping[str, Column], views: Sequence[str] = ()) -> str:
    """Columns of numbers under headings; those of `views` are named "VIEW-NAME"."""
    table = []
    for name, column in columns.items():
        view = next((view for view in views if name.startswith(f"{view}-")), "")
        rest = name.removeprefix(f"{view}-")
        heading, form, factor = _FORMATS.get(rest, (rest, ".5g", 1))
        numbers = [MISSING if value is None else format(factor * value, form) for value in column]
        table.append([f"{view} {heading}" if view else heading, *numbers])
    return aligned(zip(*table, strict=True))


def curve_text(curve: Curve) -> str:
    """A codec's results, in lines."""
    count = f", mean over {images_text(len(curve.per_image))}" if curve.per_image else ""
    return f"{printable(curve.name)}: {printable(curve.description)}{count}\n{columns_text(curve.results)}"


def comparison_text(comparison: Comparison) -> str:
    """A comparison, in lines: the deltas, a row for each quality, and how many of them are ahead."""
    name, other = printable(comparison.name), printable(comparison.against)
    differences = [level.mean.value for level in comparison.levels if level.mean.value is not None]
    ahead = sum(value > 0 for value in differences)
    lines = [
        f"{name} against {other}",
        _delta_text("BD-rate", comparison.bd_rate, "%"),
        _delta_text("BD-PSNR", comparison.bd_psnr, "dB"),
        aligned([_LEVEL_HEADING, *map(_level_row, comparison.levels)]),
        f"  more PSNR than {other} at equal bpp: at {ahead} of {len(differences)} qualities",
    ]
    if above := len(comparison.levels) - len(differences):
        lines.append(f"  - : {other} has no rate as high; {above} not compared")
    if any(level.mean.bound for level in comparison.levels):
        lines.append(f"  > : {other} has no rate as low; its PSNR at its lowest rate is taken")
    return "\n".join(lines)


def images_text(count: int) -> str:
    """A number of images, in words."""
    return f"{count} image{'' if count == 1 else 's'}"


def curves_csv(curves: Iterable[Curve]) -> bytes:
    """A row for each codec, image and quality."""
    rows = [
        {"codec": curve.name, "image": result.image, "width": result.width, "height": result.height, **row}
        for curve in curves
        for result in curve.per_image
        for row in rows_of(result.columns)
    ]
    return table_csv(rows)


def table_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows under the names of all columns that any of them has; what is missing is empty."""
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def rows_of(columns: Columns) -> list[dict[str, float | None]]:
    """Columns as rows, one for each quality."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


_LEVEL_HEADING = ("quality", "bpp", "PSNR dB", "other dB", "ahead by", "worst image", "ahead by", "ahead")


def _level_row(level: Level) -> tuple[str, ...]:
    worst = level.worst_difference
    return (
        MISSING if level.quality is None else f"{level.quality:g}",
        f"{level.bpp:.4f}",
        f"{level.psnr:.3f}",
        MISSING if level.mean.other is None else f"{level.mean.other:.3f}",
        _difference(level.mean),
        level.worst or MISSING,
        MISSING if worst is None else _difference(worst),
        f"{level.images_ahead}/{level.images}" if level.images else MISSING,
    )


def _difference(difference: Difference) -> str:
    if difference.value is None:
        return MISSING
    return f"{'> ' if difference.bound else ''}{difference.value:+.3f}"


def _delta_text(name: str, delta: Delta, unit: str) -> str:
    if delta.value is None:
        return f"  {name}: none, {printable(delta.reason)}"
    return f"  {name}: {delta.value:+.2f} {unit}, over {100 * delta.overlap:.0f} % of both curves' range"
