"""What `polc info` shows of a bundle: a page for people; `--json` gives everything."""

from __future__ import annotations

from typing import Any

from ..bitstream.geometry import LATENT_STRIDE
from .console import printable

Facts = dict[str, Any]
Row = tuple[str, ...]


def bundle_text(facts: Facts) -> str:
    """A summary of `Bundle.describe`'s facts and of what would run the attention here, in lines."""
    low, high = facts["quality_range"]
    lines = [
        f"model        {facts['name']}, latent of {facts['model']['dims'][-1]} channels",
        f"quality      {low:g} to {high:g}",
        f"fingerprint  {facts['fingerprint'][:16]}",
        f"codec_id     {facts['codec_id'][:8]}",
        f"tolerances   {_tolerances(facts['tolerances'])}",
        f"validation   {_validation(facts['validation'])}",
        *(f"note         {note}" for note in facts["notes"]),
        f"attention    {facts['attention']} on this machine",
        "",
        *_columns([("graph", "precision", "parameters", "bytes"), *map(_graph, facts["graphs"])]),
    ]
    if facts["tasks"]:
        heading = ("task", "family", "kind", "classes", "sizes", "images", "parameters", "bytes")
        lines += ["", *_columns([heading, *map(_task, facts["tasks"])])]
    return "\n".join(f"  {printable(line)}".rstrip() for line in lines)


def _graph(graph: Facts) -> Row:
    return graph["name"], graph["precision"], f"{graph['parameters']:,}", _bytes(graph["bytes"])


def _task(task: Facts) -> Row:
    return (
        task["name"],
        task["family"],
        task["kind"],
        str(task["classes"]),
        _sizes(task["sizes"]),
        _images(task["preprocessing"]),
        f"{task['parameters']:,}",
        _bytes(task["bytes"]),
    )


def _sizes(rule: Facts) -> str:
    """The images that a task reads, in pixels after padding."""
    if rule["fixed"] is not None:
        height, width = (LATENT_STRIDE * side for side in rule["fixed"])
        return f"{width}x{height} only"
    return f"from {LATENT_STRIDE * rule['minimum']}, multiples of {LATENT_STRIDE * rule['multiple']}"


def _images(preprocessing: Facts) -> str:
    """What `polc compress --for-task` does to an image."""
    steps = [f"{name} {preprocessing[name]}" for name in ("resize", "crop") if preprocessing[name]]
    return ", ".join(steps) or "as they are"


def _bytes(size: int | None) -> str:
    return "missing" if size is None else f"{size:,}"


def _tolerances(rows: list[Facts]) -> str:
    """How far scales may differ between an encoder and a decoder."""
    exponents = [exponent for row in rows for exponent in row["exponents"]]
    least, most = min(exponents), max(exponents)
    return f"2^-{least}" + (f" to 2^-{most}" if most > least else "") + " of a scale"


def _validation(checks: list[Facts]) -> str:
    if not checks:
        return "none: the bundle was exported without a comparison with PyTorch"
    failed = [str(check.get("name")) for check in checks if not check.get("passed")]
    return f"{len(checks)} checks against PyTorch, " + (
        f"failed: {', '.join(failed)}" if failed else "all passed"
    )


def _columns(rows: list[Row]) -> list[str]:
    """Rows as lines, each column as wide as its longest entry, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = [column[-1][:1].isdigit() for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            entry.rjust(width) if number else entry.ljust(width)
            for entry, width, number in zip(row, widths, numbers, strict=True)
        )
        for row in rows
    ]
