"""`polc-bench accuracy`: how well a task predicts from real files, against their rate.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ..options import CodecChoice, Reporting, codec_choice, force, reporting
from .options import checkpoint_option, csv_option, document_option, numbers, plot_option

DEFAULT_IGNORED = (255,)


@dataclass(frozen=True)
class Request:
    """What the command line asks for; fields are called as the options."""

    folder: Path
    task: str
    qualities: tuple[float, ...] | None
    limit: int | None
    labels: Path | None
    ignored: tuple[int, ...]
    reduce_zero_label: bool
    with_pixels: bool
    checkpoint: Path | None
    agreement_with: Path | None
    output: Path | None
    csv: Path | None
    plot: Path | None
    force: bool
    codec_choice: CodecChoice
    reporting: Reporting


def _qualities(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    return None if value is None else numbers(value)


@click.command(
    epilog="""\b
Examples:
  polc-bench accuracy imagenet/val/ --task convnext_tiny --bundle polc.bundle --limit 1000 --with-pixels
  polc-bench accuracy pictures/ --labels pictures.csv --task convnext_tiny --qualities 1,4,8 --json
  polc-bench accuracy camvid/test/ --task camvid --ignore-label 11 --csv camvid.csv --plot camvid.png
  polc-bench accuracy ade20k/val/ --task scenes --reduce-zero-label --bundle polc.bundle
  polc-bench accuracy imagenet/val/ --task convnext_tiny --limit 50 --checkpoint convnext.pth.tar
  polc-bench accuracy pictures/ --task cifar10 --backend torch --checkpoint nano.safetensors -o torch.json
  polc-bench accuracy pictures/ --task cifar10 --backend tensorrt --agreement-with torch.json"""
)
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--task", metavar="NAME", required=True, help="A task of the bundle ('polc info BUNDLE' lists them)."
)
@click.option(
    "--qualities",
    metavar="N,N,...",
    callback=_qualities,
    help="Qualities to measure. Default: every whole one of the bundle.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="Take N pictures, evenly from all there are."
)
@click.option(
    "--labels",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="Lines of file,class instead of a folder for each class; a class by name or index.",
)
@click.option(
    "--ignore-label",
    "ignored",
    metavar="N",
    type=click.IntRange(0, 255),
    multiple=True,
    default=DEFAULT_IGNORED,
    show_default=True,
    help="Pixels of masks with this index do not count. Repeatable; replaces the default.",
)
@click.option(
    "--reduce-zero-label",
    is_flag=True,
    help="Masks count classes from 1, and 0 does not count, as ADE20K's do.",
)
@click.option(
    "--with-pixels",
    is_flag=True,
    help="Predict from pixels too: from the decompressed picture at each quality, and from the original. "
    "Needs a bundle made --with-pixels.",
)
@checkpoint_option(
    "Predict by this checkpoint's PyTorch model on the same latents too, and say how often both agree; on "
    "the backend torch, the model that runs."
)
@click.option(
    "--agreement-with",
    metavar="RESULTS.json",
    type=click.Path(path_type=Path),
    help="Say how often the predictions are those of an earlier run (its -o), such as one of PyTorch on "
    "another machine.",
)
@document_option
@csv_option
@plot_option
@force
@codec_choice
@reporting
def accuracy(**options: Any) -> int:
    """Measure a task's accuracy on labelled pictures: compress, and predict from the bytes, at every quality.

    Of a classification top-1 and top-5: FOLDER has a sub-folder of pictures for each class, called as the
    class or as its index; or as many as there are classes, in sorted order. Of a segmentation the mean
    intersection over union (mIoU): FOLDER/images/NAME.* with FOLDER/masks/NAME.png, 8-bit indexes of classes.
    Pictures are scaled and cut first as 'polc compress --for-task' does, masks likewise; rates are those of
    the files that come of it.
    """
    from ...bench.quality.accuracy_run import run_accuracy

    return run_accuracy(Request(**options))
