"""`polc-bench agreement`: how far ways to run a model differ, and which files they lose of each other.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..options import Reporting, force, recursive, reporting
from .options import document_option, numbers


@dataclass(frozen=True)
class Request:
    """What the command line asks for; fields are called as the options."""

    arguments: tuple[str, ...]
    bundle: str | None
    checkpoint: Path | None
    settings: tuple[str, ...]
    qualities: tuple[float, ...]
    margin: float
    exponents: tuple[int, ...] | None
    output: Path | None
    force: bool
    recursive: bool
    reporting: Reporting


def _qualities(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    return numbers(value)


def _exponents(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    """One exponent for all coding steps, or one for each."""
    if value is None:
        return None
    from ...bitstream.calibration import LARGEST_EXPONENT, LEAST_EXPONENT

    found = numbers(value)
    fits = all(e == int(e) and LEAST_EXPONENT <= e <= LARGEST_EXPONENT for e in found)
    if not fits:
        raise click.BadParameter(
            f"expected one whole number from {LEAST_EXPONENT} to {LARGEST_EXPONENT}, or one for each step"
        )
    return tuple(int(e) for e in found)


@click.command(
    epilog="""\b
Examples:
  polc-bench agreement kodak/ --bundle nano
  polc-bench agreement kodak/ --bundle nano --checkpoint polc-nano.safetensors -o agreement.json
  polc-bench agreement photo.png --setting onnxruntime --setting onnxruntime:optimisation=all
  polc-bench agreement kodak/ --setting onnxruntime --setting onnxruntime:device=cuda
  polc-bench agreement kodak/ --setting onnxruntime --setting onnxruntime:noise=0.5 --exponents 14"""
)
@click.argument("arguments", metavar="IMAGES...", nargs=-1, required=True)
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
    callback=_qualities,
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
    callback=_exponents,
    help="Calibrate for tolerances of 2^-N, one for all coding steps or one for each. Default: the bundle's.",
)
@document_option
@force
@recursive
@reporting
def agreement(**options: Any) -> int:
    """Measure how far ways to run a model agree: every IMAGE is encoded with each, and decoded with all.

    Files are decoded twice, with their calibration and without; those that do not give the encoder's symbols
    are counted as lost. The differences between the scales, relative to the scale, are what a calibration
    must tolerate: the command proposes tolerances, by quality and coding step, for a bundle's manifest.
    """
    from ...agreement.run import run_agreement

    return run_agreement(Request(**options))
