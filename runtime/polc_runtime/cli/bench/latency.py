"""`polc-bench latency`: how long compressing, decompressing and inferring take, stage by stage.

numpy, Pillow and the codec are imported inside, so that `--help` is instant.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...errors import UsageError
from ..console import say
from ..options import Reporting, device, reporting
from .options import Outputs, ShownProgress, checkpoint_option, conclude, outputs, words

T = TypeVar("T")
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


def _listed(read: Callable[[str], T], expected: str) -> Callable[..., tuple[T, ...] | None]:
    """Reads a list with commas, each part by `read`; what is there twice is taken once."""

    def callback(
        context: click.Context, parameter: click.Parameter, value: str | None
    ) -> tuple[T, ...] | None:
        if not value:
            return None if value is None else ()
        try:
            return tuple(dict.fromkeys(read(part.strip()) for part in value.split(",")))
        except ValueError:
            raise UsageError(
                f"--{parameter.opts[0].lstrip('-')}: expected {expected}; got {value!r}"
            ) from None

    return callback


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return _positive(match[1]), _positive(match[2])


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


@click.command(
    epilog="""\b
Examples:
  polc-bench latency --bundle polc.bundle --size 768x512 --threads 2
  polc-bench latency photo.png --bundle polc.bundle --threads 1,2 --csv latency.csv
  polc-bench latency --task cifar10 --operation infer --batch 1,8 --size 192x192 --repeats 30
  polc-bench latency --attention portable --operation compress -o before.json
  polc-bench latency --backend torch --checkpoint polc.pth.tar --device cuda --size 1920x1080 --pipeline 4"""
)
@click.argument("images", metavar="[IMAGES]...", nargs=-1)
@click.option(
    "--bundle",
    metavar="BUNDLE",
    help="The bundle to measure: a folder, or the name of one that comes with polc. Default: $POLC_BUNDLE, "
    "else nano.",
)
@click.option(
    "--size",
    "sizes",
    metavar="WxH,...",
    callback=_listed(_size, "sizes with commas between them, such as 768x512,256x256"),
    help="Sizes of a synthetic image, where no IMAGES are named. Default: 768x512.",
)
@click.option(
    "--batch",
    "batches",
    metavar="N,...",
    default="1",
    show_default=True,
    callback=_listed(_positive, "whole numbers from 1, such as 1,8"),
    help="Images in one run of a graph. Above 1, of compress and decompress only the analysis and the "
    "synthesis are measured: the entropy model runs image by image.",
)
@click.option(
    "--threads",
    metavar="N,...",
    callback=_listed(_positive, "whole numbers from 1, such as 1,2"),
    help="CPU threads of a graph. Default: $POLC_THREADS, else the processors this process may use.",
)
@click.option(
    "--backend",
    "backends",
    metavar="NAME,...",
    default="onnxruntime",
    show_default=True,
    callback=words,
    help="What runs the graphs ('polc-bench env' lists them).",
)
@device
@checkpoint_option("Weights of the bundle's model, which the backend torch runs.")
@click.option(
    "--attention",
    "attentions",
    metavar="NAME,...",
    callback=words,
    help="What runs the attention: the native operator (in TensorRT, the plugin), or the portable body in "
    "the graph. Default: in ONNX Runtime both where there is a native one, elsewhere the backend's choice.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of the graphs that may be either.",
)
@click.option(
    "--quality", metavar="Q", type=float, default=4.0, show_default=True, help="Quality of the compression."
)
@click.option("--task", metavar="NAME", help="The task of the bundle that infer runs.")
@click.option(
    "--operation",
    "operations",
    metavar="NAME,...",
    callback=words,
    help="compress, decompress, infer. Default: all, infer only with --task.",
)
@click.option(
    "--warmup",
    metavar="N",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Runs that are not counted.",
)
@click.option(
    "--repeats", metavar="N", type=click.IntRange(min=1), default=10, show_default=True, help="Runs that are."
)
@click.option(
    "--pipeline",
    metavar="N,...",
    default="",
    callback=_listed(_positive, "whole numbers from 1, such as 1,4,8"),
    help="Measure the throughput too, of compress from image files and of decompress, with N images at "
    "once: reading, networks and entropy coding overlap.",
)
@outputs("output", "csv")
@reporting
def latency(
    images: tuple[str, ...],
    bundle: str | None,
    outputs: Outputs,
    reporting: Reporting,
    **options: Any,
) -> int:
    """Measure the time of compress, decompress and infer, stage by stage, against the arithmetic's limit.

    Every configuration (image, threads, batch, backend, attention) runs in a process of its own. The limit
    of a graph is its convolutions and linear layers at the rate of matrix products, measured in the same
    process between the runs. Without IMAGES a synthetic image is coded. With -v each coding step is shown.
    """
    from ...bench import latency as measure
    from ...bundle.find import DEFAULT_BUNDLE, uses_default
    from .latency_text import latency_csv, latency_text

    outputs.check()
    if uses_default(bundle):
        say(f"notice: using the bundle {DEFAULT_BUNDLE} that comes with polc; name another by --bundle")
    with ShownProgress("latency", reporting.verbose) as progress:
        found = measure(bundle, images, **options, progress=progress)
    text = latency_text(found, reporting.verbose)
    return conclude(found.to_dict(), text, outputs, reporting, found.failed, latency_csv(found))
