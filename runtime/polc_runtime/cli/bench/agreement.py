"""`polc-bench agreement`: how far ways to run a model differ, and which files they lose of each other.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..options import Reporting, recursive, reporting
from .options import Outputs, ShownProgress, conclude, number_list, outputs

if TYPE_CHECKING:
    from ...agreement import Agreement


@click.command(
    epilog="""\b
Examples:
  polc-bench agreement kodak/ --bundle nano
  polc-bench agreement kodak/ --bundle nano --checkpoint polc-nano.safetensors -o agreement.json
  polc-bench agreement photo.png --setting onnxruntime --setting onnxruntime:optimisation=all
  polc-bench agreement kodak/ --setting onnxruntime --setting onnxruntime:device=cuda
  polc-bench agreement kodak/ --setting onnxruntime --setting onnxruntime:noise=0.5 --exponents 14"""
)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@click.option(
    "--bundle",
    metavar="BUNDLE",
    help="The model: a bundle's folder, or the name of one that comes with polc. Default: $POLC_BUNDLE, else "
    "nano.",
)
@click.option(
    "--checkpoint",
    metavar="CKPT",
    type=click.Path(path_type=Path),
    help="The bundle's checkpoint, for settings of the backend torch.",
)
@click.option(
    "--setting",
    "settings",
    metavar="BACKEND[:KEY=VALUE,...]",
    multiple=True,
    help="A way to run the model; keys are threads, device, precision, attention (native, portable), "
    "optimisation (off, basic, extended, all) and exact-attention of the graphs that encoder and decoder "
    "must agree on, and noise (errors added to their results, as a share of the tolerance). Repeatable; the "
    "first also runs the analysis. Default: ONNX Runtime in several ways and, with --checkpoint, torch.",
)
@click.option(
    "--qualities",
    metavar="N,N,...",
    default="1,4.5,8",
    show_default=True,
    callback=number_list,
    help="Qualities to code at.",
)
@click.option(
    "--margin",
    metavar="N",
    type=click.FloatRange(min=1),
    default=4.0,
    show_default=True,
    help="How many times the largest difference the proposed tolerance is, at least.",
)
@click.option(
    "--exponents",
    metavar="N[,N,...]",
    callback=number_list,
    help="Calibrate for tolerances of 2^-N, one for all coding steps or one for each. Default: the bundle's.",
)
@outputs("output")
@recursive
@reporting
def agreement(outputs: Outputs, reporting: Reporting, **options: Any) -> int:
    """Measure how far ways to run a model agree: every IMAGE is encoded with each, and decoded with all.

    Files are decoded twice, with their calibration and without; those that do not give the encoder's symbols
    are counted as lost. The differences between the scales, relative to the scale, are what a calibration
    must tolerate: the command proposes tolerances, by quality and coding step, for a bundle's manifest.
    """
    from ...agreement import agreement as measure

    outputs.check()
    with ShownProgress("agreement", reporting.verbose) as progress:
        found = measure(**options, progress=progress)
    return conclude(found.to_dict(), _text(found), outputs, reporting, found.failures)


def _text(found: Agreement) -> str:
    names = [entry["setting"] for entry in found.settings]
    parts = [
        f"{found.bundle}: {len(names)} settings, {found.files_of_each} files of each, decoded with all\n"
        + "\n".join(f"  {number}  {name}" for number, name in enumerate(names)),
        _matrix("lost without calibration, by encoder and decoder", found.lost_without_calibration),
        _matrix("lost with calibration", found.lost),
        _steps(found),
        _costs(found),
    ]
    return "\n\n".join(parts)


def _matrix(title: str, lost: Sequence[Sequence[int]]) -> str:
    from .text import aligned

    heading = ["encoder", *(f"by {column}" for column in range(len(lost)))]
    rows = [[str(index), *map(str, row)] for index, row in enumerate(lost)]
    return f"{title}: {sum(map(sum, lost))}\n{aligned([heading, *rows])}"


def _steps(found: Agreement) -> str:
    """Differences by quality and coding step, and the exponents."""
    from .text import aligned

    parts = [f"largest differences between any two; proposed tolerances 2^-N, {found.margin:g} times that"]
    for each in found.qualities:
        rows = [
            ["coding step", *map(str, range(len(each.scale_difference)))],
            ["scales, relative", *(f"{value:.1e}" for value in each.scale_difference)],
            ["means", *(f"{value:.1e}" for value in each.mean_difference)],
            ["exponents used", *map(str, each.exponents)],
            ["proposed", *map(str, found.proposed_tolerances.at(each.quality))],
        ]
        parts.append(f"  at quality {each.quality:g}\n{aligned(rows)}")
    return "\n".join(parts)


def _costs(found: Agreement) -> str:
    from .text import aligned

    rows = [["quality", "bytes", "of all files", "at most"]]
    for each in found.qualities:
        rows.append(
            [
                f"{each.quality:g}",
                f"{each.calibration_bytes:.1f}",
                f"{100 * each.calibration_share:.3f} %",
                f"{100 * each.largest_calibration_share:.3f} %",
            ]
        )
    return f"the calibration's cost, by the first setting\n{aligned(rows)}"
