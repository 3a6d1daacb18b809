"""Maps of classes as pictures: a PNG of class indexes with a palette, and an overlay with a legend."""

from __future__ import annotations

import colorsys
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from .images import Pixels

MAX_PALETTE = 256
"""Classes that a palette PNG can tell apart."""

_OPACITY = 0.5
_LEAST_SIDE = 512
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (25, 25, 28), (110, 110, 116)
_LEAST_ROWS = 12
_MOST_LETTERS = 30

ClassMap = NDArray[np.uint8]


@dataclass(frozen=True)
class Region:
    """A class that is present: its index, and how many pixels it covers."""

    index: int
    pixels: int


def class_map(logits: NDArray[np.float32]) -> ClassMap:
    """The class of each pixel, uint8 [H,W], of a segmentation's logits [classes,H,W].

    Raises:
        UsageError: more classes than a palette has entries.
    """
    check_palette(logits.shape[0])
    return logits.argmax(0).astype(np.uint8)


def check_palette(classes: int) -> None:
    """Raises UsageError if there are more classes than a palette has entries."""
    if classes > MAX_PALETTE:
        raise UsageError(
            f"a map of classes is a PNG of at most {MAX_PALETTE} colours; there are {classes} classes"
        )


def regions(classes: ClassMap) -> list[Region]:
    """The classes that are present, the largest first."""
    counts = np.bincount(classes.ravel())
    order = np.argsort(-counts, kind="stable")
    return [Region(int(index), int(counts[index])) for index in order if counts[index]]


def palette() -> Pixels:
    """Colours of 256 classes, uint8 [256,3]: neighbouring indexes far apart in hue, then in brightness."""
    golden = (5**0.5 - 1) / 2
    tones = ((0.72, 0.95), (0.55, 0.75), (0.90, 0.80), (0.45, 1.00))
    colours = [
        colorsys.hsv_to_rgb((0.58 + index * golden) % 1, *tones[index // 3 % len(tones)])
        for index in range(MAX_PALETTE)
    ]
    return np.rint(np.array(colours) * 255).astype(np.uint8)


def encode_map(classes: ClassMap) -> bytes:
    """A palette PNG whose pixel values are class indexes."""
    image = Image.fromarray(classes).convert("L")
    image.putpalette(palette().tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def overlay(image: Pixels, classes: ClassMap, names: tuple[str, ...]) -> Pixels:
    """The colours of the classes laid over an image, dark lines between them, a legend on the right.

    Args:
        image: uint8 [H,W,3].
        classes: uint8 [H,W].
        names: of all classes.

    Returns:
        uint8 [H',W',3]; a small image is enlarged by a whole factor, so that the legend can be read.
    """
    factor = max(1, -(-_LEAST_SIDE // max(classes.shape)))
    image, classes = (np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (image, classes))
    mixed = (1 - _OPACITY) * image + _OPACITY * palette()[classes]
    mixed[_borders(classes)] *= 0.35
    height = classes.shape[0]
    legend = _legend(regions(classes), names, height, size=max(15, max(classes.shape) // 42))
    canvas = np.full((max(height, legend.height), classes.shape[1] + legend.width, 3), _BACKGROUND, np.uint8)
    canvas[:height, : classes.shape[1]] = np.rint(mixed)
    canvas[: legend.height, classes.shape[1] :] = np.asarray(legend)
    return canvas


def _borders(classes: ClassMap) -> NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another class."""
    borders = np.zeros(classes.shape, bool)
    borders[:, :-1] |= classes[:, 1:] != classes[:, :-1]
    borders[:-1] |= classes[1:] != classes[:-1]
    return borders


def _legend(present: list[Region], names: tuple[str, ...], height: int, size: int) -> Image.Image:
    """A column of colours, names and shares, as many as fit beside an image of that height.

    Args:
        present: the classes, the largest first.
        names: of all classes.
        height: of the image, in pixels.
        size: of the letters, in pixels.
    """
    font, row = ImageFont.load_default(size), round(1.7 * size)
    most = max(_LEAST_ROWS, (height - size) // row)
    shown = present if len(present) <= most else present[: most - 1]
    texts = [(_short(names[region.index]), _percent(region, present)) for region in shown]
    rest = f"and {len(present) - len(shown)} more"
    name_width = max(font.getlength(text) for text in (*(name for name, _ in texts), rest))
    share_width = max(font.getlength(share) for _, share in texts)
    name_left, right = round(3.1 * size), round(4.3 * size + name_width + share_width)
    rows = len(texts) + (len(shown) < len(present))
    legend = Image.new("RGB", (right + size, size + rows * row), _BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for number, (region, (name, share)) in enumerate(zip(shown, texts, strict=True)):
        top = round(size / 2) + number * row
        middle = top + row // 2
        box = (size, middle - round(0.55 * size), round(2.5 * size), middle + round(0.55 * size))
        draw.rounded_rectangle(box, size // 5, tuple(int(value) for value in palette()[region.index]))
        draw.text((name_left, middle), name, _INK, font, anchor="lm")
        draw.text((right, middle), share, _FAINT, font, anchor="rm")
    if rows > len(texts):
        middle = round(size / 2) + len(texts) * row + row // 2
        draw.text((name_left, middle), rest, _FAINT, font, anchor="lm")
    return legend


def _percent(region: Region, present: list[Region]) -> str:
    share = 100 * region.pixels / sum(other.pixels for other in present)
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _short(name: str) -> str:
    name = "".join(letter for letter in name if letter.isprintable())
    return name if len(name) <= _MOST_LETTERS else f"{name[: _MOST_LETTERS - 3]}..."
