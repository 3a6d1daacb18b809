"""The networks between pixels and latents, on images of any size: whole, or in tiles where they are large."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backends import Backend, FloatArray
from ..bundle import Manifest
from ..pictures.images import Pixels, from_tensor, to_tensor
from .checked import run
from .tiles import Tile, tiles


class ImageNetworks:
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
        self.plan = manifest.plan
        self.tile_pixels = tile_pixels
        self.has_hyper_analysis = manifest.has_graph("hyper_analysis", precision)

    def analyse(
        self, pixels: Pixels, quality: float, graph: str = "analysis"
    ) -> tuple[FloatArray, FloatArray | None]:
        """Latent y [M,h,w] and hyper-latent z [N',h',w'] of a padded image, uint8 [H,W,3].

        z has the longer reach: it is made of the whole y where the bundle has a hyper_analysis, and otherwise
        of tiles that overlap by more. It is None for a codec without.
        """
        height, width = pixels.shape[:2]
        level = np.array([quality], np.float32)
        latents = {"y": self.plan.latent} | ({"z": self.plan.hyper} if self.plan.hyper else {})
        whole = {name: _empty(plane.channels, height, width, plane.stride) for name, plane in latents.items()}
        parts = self._tiles(height, width, "y" if self.has_hyper_analysis or "z" not in whole else "z")
        for tile in parts:
            seen = pixels[tile.rows.seen(), tile.columns.seen()]
            shapes = {name: _cut(whole[name], tile, plane.stride) for name, plane in latents.items()}
            found = run(self.backend, graph, {"image": to_tensor(seen), "quality": level}, shapes)
            for name, plane in latents.items():
                tile.paste(found[name][0], whole[name], plane.stride)
        y, z = whole["y"], whole.get("z")
        if z is not None and len(parts) > 1 and self.has_hyper_analysis:
            shape = {"z": (1, *z.shape)}
            z = run(self.backend, "hyper_analysis", {"y": y[None], "quality": level}, shape)["z"][0]
        return y, z

    def synthesise(self, y_hat: FloatArray, quality: float, graph: str = "synthesis") -> FloatArray:
        """Image [1,3,H,W] in 0..1 of a latent [M,h,w]."""
        stride = self.plan.latent.stride
        image = np.empty((1, 3, stride * y_hat.shape[1], stride * y_hat.shape[2]), np.float32)
        for tile, part in self._synthesised(y_hat, quality, graph):
            image[..., tile.rows.kept(), tile.columns.kept()] = part
        return image

    def draw(
        self, y_hat: FloatArray, quality: float, height: int, width: int, graph: str = "synthesis"
    ) -> Pixels:
        """The upper left `height` x `width` pixels of that image, uint8 [height,width,3]."""
        pixels = np.empty((height, width, 3), np.uint8)
        for tile, part in self._synthesised(y_hat, quality, graph):
            place = pixels[tile.rows.kept(), tile.columns.kept()]  # shorter than the part at the lower right
            place[...] = from_tensor(part, *place.shape[:2])
        return pixels

    def _synthesised(
        self, y_hat: FloatArray, quality: float, graph: str
    ) -> Iterator[tuple[Tile, FloatArray]]:
        """Each tile and the part of the image [1,3,..] that it keeps."""
        stride = self.plan.latent.stride
        level = np.array([quality], np.float32)
        for tile in self._tiles(stride * y_hat.shape[1], stride * y_hat.shape[2], "image"):
            feeds = {"y_hat": tile.seen(y_hat, stride)[None], "quality": level}
            rows, columns = feeds["y_hat"].shape[2:]
            shapes = {"image": (1, 3, stride * rows, stride * columns)}
            yield tile, tile.inner(run(self.backend, graph, feeds, shapes)["image"], 1)

    def _tiles(self, height: int, width: int, output: str) -> list[Tile]:
        """Tiles that overlap by the reach of "y", "z" or "image"; one where the plan knows no reach."""
        reach, multiple = self.plan.reach, self.plan.pad.multiple
        if height * width <= self.tile_pixels or reach is None:
            return tiles(height, width, 0, 0, height * width, multiple)
        return tiles(height, width, getattr(reach, output), reach.min, self.tile_pixels, multiple)


def _empty(channels: int, height: int, width: int, stride: int) -> FloatArray:
    """An array [channels, height/stride, width/stride] to be filled."""
    return np.empty((channels, height // stride, width // stride), np.float32)


def _cut(whole: FloatArray, tile: Tile, stride: int) -> tuple[int, ...]:
    """The shape, with a batch of one, of what the networks give for a tile of an array."""
    return (1, *tile.seen(whole, stride).shape)
