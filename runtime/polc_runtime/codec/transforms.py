"""The networks between pixels and latents, on images of any size: whole, or in tiles where they are large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backends import Backend, FloatArray
from ..bitstream.geometry import HYPER_STRIDE, LATENT_STRIDE
from ..bundle import Manifest
from ..pictures.images import Pixels, from_tensor, to_tensor
from .checked import run
from .tiles import Reach, Tile, tiles


class Transforms:
    """Runs the analysis and the synthesis of one bundle; holds no state between calls.

    An image of more than `tile_pixels` is cut in tiles that overlap by the networks' reach, so that
    the result is the whole image's but for the rounding of float32 (docs/deployment.md, "Large images").

    Args:
        backend: runs analysis, hyper_analysis and synthesis.
        manifest: the model's dimensions, and whether there is a hyper_analysis.
        precision: that the backend runs in.
        tile_pixels: pixels of the largest image that the networks run on at once.
    """

    def __init__(self, backend: Backend, manifest: Manifest, precision: str, tile_pixels: int) -> None:
        self.backend = backend
        self.manifest = manifest
        self.tile_pixels = tile_pixels
        self.has_hyper_analysis = manifest.has_graph("hyper_analysis", precision)

    def analyse(self, pixels: Pixels, quality: float) -> tuple[FloatArray, FloatArray]:
        """Latent y [M,H/16,W/16] and hyper-latent z [N',H/64,W/64] of a padded image, uint8 [H,W,3].

        z has the longer reach: it is made of the whole y where the bundle has a hyper_analysis, and otherwise
        of tiles that overlap by more.
        """
        height, width = pixels.shape[:2]
        level = np.array([quality], np.float32)
        y = _empty(self.manifest.latent_channels, height, width, LATENT_STRIDE)
        z = _empty(self.manifest.hyper_channels, height, width, HYPER_STRIDE)
        parts = self._tiles(height, width, "y" if self.has_hyper_analysis else "z")
        for tile in parts:
            seen = pixels[tile.rows.seen(), tile.columns.seen()]
            shapes = {"y": _cut(y, tile, LATENT_STRIDE), "z": _cut(z, tile, HYPER_STRIDE)}
            found = run(self.backend, "analysis", {"image": to_tensor(seen), "quality": level}, shapes)
            tile.paste(found["y"][0], y, LATENT_STRIDE)
            tile.paste(found["z"][0], z, HYPER_STRIDE)
        if len(parts) > 1 and self.has_hyper_analysis:
            whole = {"z": (1, *z.shape)}
            z = run(self.backend, "hyper_analysis", {"y": y[None], "quality": level}, whole)["z"][0]
        return y, z

    def synthesise(self, y_hat: FloatArray, quality: float) -> FloatArray:
        """Image [1,3,H,W] in 0..1 of a latent [M,H/16,W/16]."""
        _, h, w = y_hat.shape
        image = np.empty((1, 3, LATENT_STRIDE * h, LATENT_STRIDE * w), np.float32)
        for tile, part in self._synthesised(y_hat, quality):
            image[..., tile.rows.kept(), tile.columns.kept()] = part
        return image

    def draw(self, y_hat: FloatArray, quality: float, height: int, width: int) -> Pixels:
        """The upper left `height` x `width` pixels of that image, uint8 [height,width,3]."""
        pixels = np.empty((height, width, 3), np.uint8)
        for tile, part in self._synthesised(y_hat, quality):
            place = pixels[tile.rows.kept(), tile.columns.kept()]  # shorter than the part at the lower right
            place[...] = from_tensor(part, *place.shape[:2])
        return pixels

    def _synthesised(self, y_hat: FloatArray, quality: float) -> Iterator[tuple[Tile, FloatArray]]:
        """Each tile and the part of the image [1,3,..] that it keeps."""
        _, h, w = y_hat.shape
        level = np.array([quality], np.float32)
        for tile in self._tiles(LATENT_STRIDE * h, LATENT_STRIDE * w, "image"):
            feeds = {"y_hat": tile.seen(y_hat, LATENT_STRIDE)[None], "quality": level}
            rows, columns = feeds["y_hat"].shape[2:]
            shapes = {"image": (1, 3, LATENT_STRIDE * rows, LATENT_STRIDE * columns)}
            yield tile, tile.inner(run(self.backend, "synthesis", feeds, shapes)["image"], 1)

    def _tiles(self, height: int, width: int, output: str) -> list[Tile]:
        """Tiles that overlap by the reach of "y", "z" or "image"; a whole small image needs to know none."""
        if height * width <= self.tile_pixels:
            return tiles(height, width, 0, 0, height * width)
        reach = Reach.of(self.manifest.model)
        return tiles(height, width, getattr(reach, output), reach.least, self.tile_pixels)


def _empty(channels: int, height: int, width: int, stride: int) -> FloatArray:
    """An array [channels, height/stride, width/stride] to be filled."""
    return np.empty((channels, height // stride, width // stride), np.float32)


def _cut(whole: FloatArray, tile: Tile, stride: int) -> tuple[int, ...]:
    """The shape, with a batch of one, of what the networks give for a tile of an array."""
    return (1, *tile.seen(whole, stride).shape)
