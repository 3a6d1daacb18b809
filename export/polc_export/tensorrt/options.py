"""How engines are to be built, and the command-line options that say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from polc_runtime.cli.options import grouped

from .shapes import Batch, Shapes, Size


@dataclass(frozen=True)
class EngineOptions:
    """How to build engines.

    Attributes:
        shapes: images that they are to take.
        precision: fp32 or fp16, of the graphs that may be either.
        plugin: whether the attention is left to the plugin; None for where its library loads.
        tf32: whether TF32 is allowed outside the entropy path.
        workspace: working memory that a layer may take, in MiB; None for all there is.
        cache: folder of the engines; None for the default one.
        rebuild: whether engines that are there already are built again.
    """

    shapes: Shapes = field(default_factory=Shapes)
    precision: str = "fp32"
    plugin: bool | None = None
    tf32: bool = False
    workspace: int | None = None
    cache: Path | None = None
    rebuild: bool = False


def _gathered(
    min_shape: Size,
    opt_shape: Size,
    max_shape: Size,
    batch: Batch,
    plugin: bool | None,
    tf32: bool,
    workspace: int | None,
    cache: Path | None,
    rebuild: bool,
) -> EngineOptions:
    shapes = Shapes(min_shape, opt_shape, max_shape, batch)
    return EngineOptions(shapes, plugin=plugin, tf32=tf32, workspace=workspace, cache=cache, rebuild=rebuild)


def _size(context: click.Context, parameter: click.Parameter, value: str) -> Size:
    return Size.parse(value, parameter.opts[0])


def _batch(context: click.Context, parameter: click.Parameter, value: str) -> Batch:
    return Batch.parse(value, parameter.opts[0])


def _shape_option(which: str, default: Size, help_text: str) -> Callable[..., Any]:
    return click.option(
        f"--{which}-shape",
        metavar="HxW",
        callback=_size,
        default=str(default),
        show_default=True,
        help=f"Engines: {help_text}",
    )


engine_options = grouped(
    "engines",
    _gathered,  # type: ignore[arg-type]  # any function of the options serves
    {
        "min_shape": _shape_option("min", Shapes.min, "the smallest images, padded to multiples of 64."),
        "opt_shape": _shape_option("opt", Shapes.opt, "the images that they are to be fastest at."),
        "max_shape": _shape_option("max", Shapes.max, "the largest height, and the largest width."),
        "batch": click.option(
            "--batch",
            metavar="N|MIN:OPT:MAX",
            callback=_batch,
            default="1",
            show_default=True,
            help="Engines: images at once; always 1 in the entropy path.",
        ),
        "plugin": click.option(
            "--plugin/--inlined",
            default=None,
            help="Engines: leave the attention to the plugin, or not. Default: where its library loads.",
        ),
        "tf32": click.option(
            "--tf32", is_flag=True, help="Engines: allow TF32, but in the entropy path. Default: nowhere."
        ),
        "workspace": click.option(
            "--workspace",
            metavar="MIB",
            type=click.IntRange(min=1),
            help="Engines: working memory that a layer may take. Default: what the GPU has.",
        ),
        "cache": click.option(
            "--cache",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Engines: the folder they go to. Default: $POLC_CACHE/engines, else the platform's cache.",
        ),
        "rebuild": click.option(
            "--rebuild", is_flag=True, help="Engines: build those again that are in the cache."
        ),
    },
)
"""Declares the options of engines; a command gets them as `engines`, an `EngineOptions`."""
