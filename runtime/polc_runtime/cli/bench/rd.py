"""`polc-bench rd`: rate and distortion of codecs on pictures, and one against the other.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ...errors import UsageError
from ..options import CodecChoice, Reporting, codec_choice, force, recursive, reporting
from .options import csv_option, numbers, plot_option, words

DEFAULT_CODEC = "polc"
_NAMED = re.compile(r"([a-z0-9]+)=(.*)")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; fields are called as the options."""

    arguments: tuple[str, ...]
    codecs: tuple[str, ...]
    qualities: dict[str | None, tuple[float, ...]]
    metrics: tuple[str, ...] | None
    results: Path | None
    against: tuple[Path, ...]
    output: Path | None
    csv: Path | None
    plot: Path | None
    force: bool
    recursive: bool
    codec_choice: CodecChoice
    reporting: Reporting

    @property
    def plan(self) -> dict[str, tuple[float, ...] | None]:
        """Qualities by codec, None for its own; those given without a name are the first codec's.

        Raises:
            UsageError: qualities are given for a codec that is not measured.
        """
        names = list(dict.fromkeys(self.codecs or (DEFAULT_CODEC,)))
        asked = {names[0] if name is None else name: value for name, value in self.qualities.items()}
        for name in asked:
            if name not in names:
                raise UsageError(f"--qualities names {name}, which is not measured; add --codec {name}")
        return {name: asked.get(name) for name in names}


def _qualities(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str | None, tuple[float, ...]]:
    """Reads [CODEC=]N,N,... of every use of the option."""
    found: dict[str | None, tuple[float, ...]] = {}
    for value in values:
        match = _NAMED.fullmatch(value)
        name, text = (match[1], match[2]) if match else (None, value)
        if name in found:
            raise UsageError(f"--qualities is given twice for {name or 'one codec'}")
        found[name] = numbers(text)
    return found


@click.command(
    epilog="""\b
Examples:
  polc-bench rd kodak/ --bundle nano/ --codec polc --codec jpeg -o results/ --plot rd.png
  polc-bench rd kodak/ --codec jpeg -o jpeg.json
  polc-bench rd kodak/ --bundle nano/ --against jpeg.json --against compressai/mbt2018-mean.json
  polc-bench rd photo.png --bundle nano/ --qualities 2,4.5,7 --metrics psnr --csv photo.csv
  polc-bench rd --results nano.json --against jpeg.json --plot rd.png"""
)
@click.argument("arguments", metavar="IMAGES...", nargs=-1)
@click.option(
    "--codec",
    "codecs",
    metavar="NAME",
    multiple=True,
    help="What is measured: polc (the bundle), jpeg or webp (Pillow's). Repeatable; the first is compared "
    "with all the others. Default: polc.",
)
@click.option(
    "--qualities",
    metavar="[CODEC=]N,N,...",
    multiple=True,
    callback=_qualities,
    help="Qualities to measure, of the first codec if none is named. Repeatable. Default: every whole one of "
    "the bundle; 1 to 95 in steps of 5 of jpeg and webp, and the lowest of jpeg.",
)
@click.option(
    "--metrics",
    metavar="NAME,...",
    callback=words,
    help="psnr, ms-ssim, lpips, or others that are installed. Default: all that can be measured here.",
)
@click.option(
    "--against",
    metavar="FILE.json",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Compare with these results, of this command or of CompressAI. Repeatable.",
)
@click.option(
    "--results",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Take these results for the first codec's; without IMAGES nothing is measured.",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Write what was measured in CompressAI's JSON: a .json file for one codec, or a folder for several.",
)
@csv_option
@plot_option
@force
@recursive
@codec_choice
@reporting
def rd(**options: Any) -> int:
    """Measure rate and distortion: compress IMAGES to bytes and decompress those, at every quality.

    IMAGES are files of any kind Pillow reads, or folders. Rates are those of whole files, header included.
    Numbers are means over the pictures of each picture's own. Several codecs, and --against, are compared:
    BD-rate and BD-PSNR, and for each quality the difference in PSNR at equal bpp, on the mean curve and on
    the worst picture.
    """
    from ...bench.quality.rd_run import run_rd

    return run_rd(Request(**options))
