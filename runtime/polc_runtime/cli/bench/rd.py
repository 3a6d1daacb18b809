"""`polc-bench rd`: rate and distortion of codecs on images, and one against the other.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import UsageError
from ..console import say
from ..options import CodecChoice, Reporting, codec_choice, recursive, reporting
from .options import Outputs, ShownProgress, check_free, conclude, json_text, numbers, outputs, words, write

if TYPE_CHECKING:
    from ...bench import RateDistortion
    from ...bench.quality.codecs import Coder
    from ...codec import Codec

POLC = "polc"
_JSON = ".json"
_NAMED = re.compile(r"([a-z0-9]+)=(.*)")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

Qualities = dict[str | None, tuple[float, ...]]
"""By codec; under None those that are given without a name."""


def _qualities(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Qualities:
    """Reads [CODEC=]N,N,... of every use of the option."""
    found: Qualities = {}
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
    "folder",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Write what was measured in CompressAI's JSON: a .json file for one codec, or a folder for several.",
)
@outputs("csv", "plot")
@recursive
@codec_choice
@reporting
def rd(
    arguments: tuple[str, ...],
    codecs: tuple[str, ...],
    qualities: Qualities,
    metrics: tuple[str, ...] | None,
    results: Path | None,
    against: tuple[Path, ...],
    folder: Path | None,
    outputs: Outputs,
    recursive: bool,
    codec_choice: CodecChoice,
    reporting: Reporting,
) -> int:
    """Measure rate and distortion: compress IMAGES to bytes and decompress those, at every quality.

    IMAGES are files of any kind Pillow reads, or folders. Rates are those of whole files, header included.
    Numbers are means over the images of each image's own. Several codecs, and --against, are compared:
    BD-rate and BD-PSNR, and for each quality the difference in PSNR at equal bpp, on the mean curve and on
    the worst image.
    """
    from ...bench import draw, rate_distortion, read_curves
    from ...bench.quality.codecs import as_coder
    from .text import curves_csv

    if not arguments and results is None:
        raise UsageError("there is nothing to measure: name IMAGES, or --results FILE.json")
    plan = _plan(codecs, qualities) if arguments else {}
    outputs.check()
    given = [] if results is None else read_curves(results)
    others = [curve for path in against for curve in read_curves(path)]
    with ExitStack() as stack, ShownProgress("rd", reporting.verbose) as progress:
        coders: dict[Codec | Coder | str, tuple[float, ...] | None] = {}
        files = {}
        for name, wanted in plan.items():
            coder = as_coder(stack.enter_context(codec_choice.load()) if name == POLC else name)
            coders[coder] = wanted
            if folder is not None:
                files[coder.name] = _result_file(folder, coder.name, len(plan))
                check_free(files[coder.name], outputs.force)
        found = rate_distortion(
            arguments, coders, metrics, given, others, recursive=recursive, progress=progress
        )
    for curve in found.measured if files else ():
        write(files[curve.name], f"{json_text(curve.to_dict())}\n".encode(), outputs.force)
    if outputs.plot is not None:
        write(outputs.plot, draw(found.plot(), outputs.plot.suffix), outputs.force)
    for notice in found.notices:
        say(f"notice: {notice}")
    return conclude(
        found.to_dict(), _text(found), outputs, reporting, found.left_out, curves_csv(found.curves)
    )


def _plan(codecs: tuple[str, ...], qualities: Qualities) -> dict[str, tuple[float, ...] | None]:
    """Qualities by codec, None for its own; those given without a name are the first codec's.

    Raises:
        UsageError: qualities are given for a codec that is not measured.
    """
    names = list(dict.fromkeys(codecs or (POLC,)))
    asked = {names[0] if name is None else name: value for name, value in qualities.items()}
    for name in asked:
        if name not in names:
            raise UsageError(f"--qualities names {name}, which is not measured; add --codec {name}")
    return {name: asked.get(name) for name in names}


def _result_file(output: Path, name: str, count: int) -> Path:
    """Where a codec's results go: the .json file that is named, or one of its own in a folder.

    Raises:
        UsageError: one file is named for several codecs.
    """
    if output.suffix.lower() != _JSON or output.is_dir():
        return output / f"{_UNSAFE.sub('-', name)}{_JSON}"
    if count > 1:
        raise UsageError(f"{output}: is one file, and {count} codecs are measured; name a folder")
    return output


def _text(found: RateDistortion) -> str:
    from .text import comparison_text, curve_text

    parts: Sequence[str] = [*map(curve_text, found.measured), *map(comparison_text, found.comparisons)]
    return "\n\n".join(parts or map(curve_text, found.curves))
