"""`polc-bench accuracy`: how well a task predicts from real files, against their rate.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..console import say
from ..options import CodecChoice, Reporting, codec_choice, reporting
from .options import (
    Outputs,
    ShownProgress,
    checkpoint_option,
    conclude,
    number_list,
    outputs,
    write,
)

if TYPE_CHECKING:
    from ...bench import Accuracy

DEFAULT_IGNORED = (255,)
ORIGINAL = "original"


@click.command(
    epilog="""\b
Examples:
  polc-bench accuracy imagenet/val/ --task convnext_tiny --bundle polc.bundle --limit 1000 --with-pixels
  polc-bench accuracy pictures/ --labels pictures.csv --task convnext_tiny --qualities 1,4,8 --json
  polc-bench accuracy camvid/test/ --task camvid --ignore-label 11 --csv camvid.csv --plot camvid.png
  polc-bench accuracy ade20k/val/ --task scenes --reduce-zero-label --bundle polc.bundle
  polc-bench accuracy imagenet/val/ --task convnext_tiny --limit 50 --checkpoint convnext.pth.tar
  polc-bench accuracy pictures/ --task cifar10 --backend torch --checkpoint nano.safetensors -o torch.json"""
)
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--task", metavar="NAME", required=True, help="A task of the bundle ('polc info BUNDLE' lists them)."
)
@click.option(
    "--qualities",
    metavar="N,N,...",
    callback=number_list,
    help="Qualities to measure. Default: every whole one of the bundle.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=1), help="Take N images, evenly from all there are."
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
    help="Predict from pixels too: from the decompressed image at each quality, and from the original. "
    "Needs a bundle made --with-pixels.",
)
@checkpoint_option(
    "Predict by this checkpoint's PyTorch model on the same latents too, and say how often both agree; on "
    "the backend torch, the model that runs."
)
@outputs("output", "csv", "plot")
@codec_choice
@reporting
def accuracy(
    folder: Path,
    checkpoint: Path | None,
    outputs: Outputs,
    codec_choice: CodecChoice,
    reporting: Reporting,
    **options: Any,
) -> int:
    """Measure a task's accuracy on labelled images: compress, and predict from the bytes, at every quality.

    Of a classification top-1 and top-5: FOLDER has a sub-folder of images for each class, called as the
    class or as its index; or as many as there are classes, in sorted order. Of a segmentation the mean
    intersection over union (mIoU): FOLDER/images/NAME.* with FOLDER/masks/NAME.png, indexes of classes.
    Images are scaled and cut first as 'polc compress --for-task' does, masks likewise; rates are those of
    the resulting files.
    """
    from ...bench import accuracy as measure
    from ...bench import draw
    from .text import rows_of, table_csv

    outputs.check()
    with codec_choice.load(checkpoint) as codec, ShownProgress("accuracy", reporting.verbose) as progress:
        found = measure(codec, data=folder, checkpoint=checkpoint, progress=progress, **options)
    rows: list[dict[str, Any]] = [*rows_of(found.results)]
    if found.original:
        rows.append({"quality": ORIGINAL, **found.original})
    if outputs.plot is not None:
        write(outputs.plot, draw(found.plot(), outputs.plot.suffix), outputs.force)
    for notice in found.notices:
        say(f"notice: {notice}")
    return conclude(found.to_dict(), _text(found), outputs, reporting, found.left_out, table_csv(rows))


def _text(found: Accuracy) -> str:
    from ...bench.quality.accuracy import ORIGINAL_LABEL, PIXELS, REFERENCE
    from .text import columns_text, images_text

    lines = [
        f"{found.description}, {images_text(len(found.per_image))}",
        columns_text(found.results, (PIXELS, REFERENCE)),
    ]
    if found.original:
        lines += [ORIGINAL_LABEL, columns_text({name: [value] for name, value in found.original.items()})]
    return "\n".join(lines)
