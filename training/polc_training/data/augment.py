"""Random choices and cuts on pixels, drawn from an explicit generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Generator, Tensor

from polc_runtime.pictures.images import Pixels, to_tensor


def draw_integer(generator: Generator, count: int) -> int:
    """A whole number 0..count-1, all equally likely."""
    return int(torch.randint(count, (), generator=generator))


def draw_uniform(generator: Generator, low: float, high: float) -> float:
    """A real number in low..high."""
    return low + (high - low) * float(torch.rand((), dtype=torch.float64, generator=generator))


def draw_chance(generator: Generator, probability: float = 0.5) -> bool:
    """True with the given probability."""
    return float(torch.rand((), generator=generator)) < probability


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Has what draws from torch's global CPU generator, as torchvision's transforms do, draw from this one.

    The global generator is afterwards as it was before.
    """
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


def reflected(pixels: Pixels, height: int, width: int) -> Pixels:
    """Pads each axis that is too short by what it lacks, on both sides, by reflection.

    This is torchvision's `RandomCrop(pad_if_needed=True, padding_mode="reflect")` on Pillow images: a random
    crop of the result varies where the image lies in it. Images of any size, even one pixel, can be padded.

    Args:
        pixels: uint8 [h,w,3].
        height: least height of the result.
        width: least width of the result.
    """
    lack = [max(wanted - have, 0) for wanted, have in zip((height, width), pixels.shape, strict=False)]
    if not any(lack):
        return pixels
    return np.pad(pixels, ((lack[0], lack[0]), (lack[1], lack[1]), (0, 0)), mode="reflect")


def random_crop(pixels: Pixels, size: int, generator: Generator) -> Pixels:
    """A square of `size` from anywhere in uint8 [h,w,3], padded by reflection where it is smaller."""
    pixels = reflected(pixels, size, size)
    top, left = (draw_integer(generator, have - size + 1) for have in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def random_flip(pixels: Pixels, generator: Generator, axes: Sequence[int] = (1,)) -> Pixels:
    """Mirrors uint8 [h,w,3] with probability 1/2 along each of the axes: 0 upside down, 1 left to right."""
    for axis in axes:
        if draw_chance(generator):
            pixels = np.flip(pixels, axis)
    return pixels


def planes(pixels: Pixels) -> Tensor:
    """uint8 [h,w,3] -> float32 [3,h,w] in 0..1."""
    return torch.from_numpy(to_tensor(pixels)[0])
