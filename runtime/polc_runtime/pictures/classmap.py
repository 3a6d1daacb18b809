"""Maps of classes as images: a PNG of class indexes with a palette, and an overlay with a legend."""

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
_BORDER_SHADE = 0.35
_MIN_SIDE = 512
_BACKGROUND, _INK, _FAINT = (255, 255, 255), (25, 25, 28), (110, 110, 116)
_MIN_ROWS = 12
_MAX_NAME_LENGTH = 30
_MIN_LETTER, _LETTERS_A_SIDE = 15, 42
"""The legend's letters: smallest height in pixels, and how many heights the image's longer side has."""
_ROW, _BOX_LEFT, _BOX_RIGHT, _BOX_HALF, _NAME_LEFT, _SHARE_GAP = 1.7, 1.0, 2.5, 0.55, 3.1, 1.2
"""The legend's measures, in heights of a letter."""

ClassMap = NDArray[np.uint8]


@dataclass(frozen=True)
class Region:
    """A class that is present: its index, and how many pixels it covers."""

    index: int
    pixels: int


def class_map(logits: NDArray[np.float32]) -> ClassMap:
    """The most likely class of each pixel, uint8 [H,W], of a segmentation's logits [classes,H,W].

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
    """The classes that are present in a map, uint8 [H,W], the largest first."""
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
    """A palette PNG whose pixel values are the class indexes, uint8 [H,W]."""
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
    factor = max(1, -(-_MIN_SIDE // max(classes.shape)))
    image, classes = (np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (image, classes))
    mixed = (1 - _OPACITY) * image + _OPACITY * palette()[classes]
    mixed[_borders(classes)] *= _BORDER_SHADE
    height = classes.shape[0]
    letter = max(_MIN_LETTER, max(classes.shape) // _LETTERS_A_SIDE)
    legend = _legend(regions(classes), names, height, letter)
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


def _legend(present: list[Region], names: tuple[str, ...], height: int, letter: int) -> Image.Image:
    """A column of colours, names and shares, as many as fit beside an image of that height.

    Args:
        present: the classes, the largest first.
        names: of all classes.
        height: of the image, in pixels.
        letter: height of the letters, in pixels.
    """

    def pixels(letters: float) -> int:
        return round(letters * letter)

    font, row = ImageFont.load_default(letter), pixels(_ROW)
    fitting = max(_MIN_ROWS, (height - letter) // row)
    shown = present if len(present) <= fitting else present[: fitting - 1]
    texts = [(_short(names[region.index]), _percent(region, present)) for region in shown]
    rest = f"and {len(present) - len(shown)} more"
    name_width = max(font.getlength(text) for text in (*(name for name, _ in texts), rest))
    share_width = max(font.getlength(share) for _, share in texts)
    right = round((_NAME_LEFT + _SHARE_GAP) * letter + name_width + share_width)
    rows = len(texts) + (len(shown) < len(present))
    legend = Image.new("RGB", (right + letter, letter + rows * row), _BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for number, (region, (name, share)) in enumerate(zip(shown, texts, strict=True)):
        middle = pixels(0.5) + number * row + row // 2
        half = pixels(_BOX_HALF)
        box = (pixels(_BOX_LEFT), middle - half, pixels(_BOX_RIGHT), middle + half)
        draw.rounded_rectangle(box, letter // 5, tuple(int(value) for value in palette()[region.index]))
        draw.text((pixels(_NAME_LEFT), middle), name, _INK, font, anchor="lm")
        draw.text((right, middle), share, _FAINT, font, anchor="rm")
    if rows > len(texts):
        middle = pixels(0.5) + len(texts) * row + row // 2
        draw.text((pixels(_NAME_LEFT), middle), rest, _FAINT, font, anchor="lm")
    return legend


def _percent(region: Region, present: list[Region]) -> str:
    share = 100 * region.pixels / sum(other.pixels for other in present)
    return f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _short(name: str) -> str:
    name = "".join(letter for letter in name if letter.isprintable())
    return name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 3]}..."
