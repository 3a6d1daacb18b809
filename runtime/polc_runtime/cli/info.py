"""`polc info`: what `.polc` files and bundles hold; a page for people, `--json` gives everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..backends.op_library import find_op_library
from ..bitstream.container import Container
from ..bundle import Bundle
from ..bundle.find import packaged_bundles
from ..files.inputs import STANDARD, Source, check_names
from ..files.outputs import Job
from ..limits import Limits
from .console import printable
from .options import Reporting, inputs, reporting
from .program import current_limits
from .runner import Facts, coded_facts, read_input, run
from .tables import aligned, facts_table

_HIDDEN = {"input", "ok", "seconds", "warnings"}
"""Facts of every result that the text of a file leaves out."""


@click.command(
    epilog="""\b
Examples:
  polc info photo.polc
  polc info nano
  polc info my.bundle/ --json"""
)
@inputs("FILE|BUNDLE")
@reporting
def info(arguments: tuple[str, ...], reporting: Reporting) -> int:
    """Show what .polc files and bundles hold.

    Of a .polc file the header and the size of each section, which needs no bundle; of a bundle, a folder or
    the name of one that comes with polc, the summary of its manifest.
    """
    check_names(arguments)
    jobs = [Job(Source(None if name == STANDARD else Path(name), Path())) for name in arguments]
    return run("info", jobs, partial(_info_one, limits=current_limits()), reporting, _info_text)


def _info_one(job: Job, limits: Limits) -> Facts:
    path = job.source.path
    if path is not None and (path.is_dir() or (not path.exists() and str(path) in packaged_bundles())):
        facts = Bundle.load(path, limits).describe()
        return {"kind": "bundle", **facts, "attention": find_op_library().attention}
    data = read_input(job, limits)
    container = Container.unpack(data, limits)
    return {
        "kind": "polc",
        **coded_facts(container.header, len(data)),
        "fingerprint": container.header.fingerprint.hex(),
        "codec_id": container.header.codec_id.hex(),
        "section_bytes": dict(container.section_sizes),
        "tolerance_exponents": list(container.calibration.exponents) if container.calibration else None,
    }


def _info_text(result: Facts) -> str:
    if result["kind"] == "bundle":
        text = _bundle_text(result)
    else:
        text = facts_table({key: value for key, value in result.items() if key not in _HIDDEN})
    return f"{printable(result['input'])}\n{text}"


def _bundle_text(facts: Facts) -> str:
    """A summary of `Bundle.describe`'s facts and of what would run the attention here, in lines."""
    low, high = facts["quality_range"]
    latent = facts["coding"]["latent"]
    rows = [
        ("model", f"{facts['name']}, latent of {latent['channels']} channels"),
        ("quality", f"{low:g} to {high:g}"),
        ("fingerprint", facts["fingerprint"][:16]),
        ("codec_id", facts["codec_id"][:8]),
        ("tolerances", _tolerances(facts["tolerances"])),
        ("validation", _validation(facts["validation"])),
        *(("variant", variant["name"]) for variant in facts["variants"]),
        *(("note", note) for note in facts["notes"]),
        ("attention", f"{facts['attention']} on this machine"),
    ]
    graphs = [("graph", "precision", "parameters", "bytes"), *map(_graph, facts["graphs"])]
    tables = [aligned(rows, left=(0, 1)), aligned(graphs, left=(0, 1))]
    if facts["tasks"]:
        heading = ("task", "family", "kind", "classes", "sizes", "images", "parameters", "bytes")
        tasks = [_task(task, latent["stride"]) for task in facts["tasks"]]
        tables.append(aligned([heading, *tasks], left=(0, 1, 2, 4, 5)))
    return "\n\n".join(tables)


def _graph(graph: Facts) -> tuple[str, ...]:
    return graph["name"], graph["precision"], f"{graph['parameters']:,}", _bytes(graph["bytes"])


def _task(task: Facts, stride: int) -> tuple[str, ...]:
    return (
        task["name"],
        task["family"],
        task["kind"],
        str(task["classes"]),
        _sizes(task["sizes"], stride),
        _images(task["preprocessing"]),
        f"{task['parameters']:,}",
        _bytes(task["bytes"]),
    )


def _sizes(rule: Facts, stride: int) -> str:
    """The images that a task reads, in pixels after padding, of a latent of that stride."""
    if rule["fixed"] is not None:
        height, width = (stride * side for side in rule["fixed"])
        return f"{width}x{height} only"
    return f"from {stride * rule['minimum']}, multiples of {stride * rule['multiple']}"


def _images(preprocessing: Facts) -> str:
    """What `polc compress --for-task` does to an image."""
    steps = [f"{name} {preprocessing[name]}" for name in ("resize", "crop") if preprocessing[name]]
    return ", ".join(steps) or "as they are"


def _bytes(size: int | None) -> str:
    return "missing" if size is None else f"{size:,}"


def _tolerances(rows: list[Facts]) -> str:
    """How far scales may differ between an encoder and a decoder."""
    exponents = [exponent for row in rows for exponent in row["exponents"]]
    low, high = min(exponents), max(exponents)
    return f"2^-{low}" + (f" to 2^-{high}" if high > low else "") + " of a scale"


def _validation(checks: list[dict[str, Any]]) -> str:
    if not checks:
        return "none: the bundle was exported without a comparison with PyTorch"
    failed = [str(check.get("name")) for check in checks if not check.get("passed")]
    return f"{len(checks)} checks against PyTorch, " + (
        f"failed: {', '.join(failed)}" if failed else "all passed"
    )
