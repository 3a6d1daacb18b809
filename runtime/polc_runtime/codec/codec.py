"""`Codec`: images to bytes, bytes to images and predictions, with one bundle on one backend."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..backends import CPU, Backend, BackendOptions, FloatArray, make_backend
from ..bitstream.container import Container, Header, quality_code
from ..bundle import Bundle
from ..errors import BitstreamError, CodecMismatchWarning, ImageError, UsageError
from ..limits import DEFAULT_LIMITS, Limits
from ..pictures.images import Pixels, pad
from ..trace import span
from .latent import Decoded, EncodedLatent, LatentCoder
from .predict import Predictor
from .tiles import TILE_PIXELS
from .transforms import Transforms

PIXELS, CONTAINER = "pixels", "container"
"""Spans of `polc_runtime.trace`: between pixels and the graphs' arrays, between file and streams."""


class Codec:
    """Compresses images to `.polc` files, decompresses them and predicts from them; threads may share it.

    Use `Codec.load`. A context manager: leaving it frees the backend.

    Args:
        bundle: graphs and tables.
        backend: name, see `polc_runtime.backends`; or one that is made already, of the same bundle.
        options: precision, threads and device.
        limits: largest images and files accepted.
        tile_pixels: pixels of the largest image that the networks run on at once; larger ones are cut in
            tiles.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: str | Backend = "onnxruntime",
        options: BackendOptions | None = None,
        limits: Limits = DEFAULT_LIMITS,
        tile_pixels: int = TILE_PIXELS,
    ) -> None:
        self.bundle = bundle
        self.limits = limits
        self.tile_pixels = tile_pixels
        manifest = bundle.manifest
        self.options = options or BackendOptions()
        self.backend = make_backend(backend, bundle, self.options)
        self.transforms = Transforms(self.backend, manifest, self.options.precision, tile_pixels)
        tables, channels = bundle.entropy_tables(), manifest.latent_channels
        self.latent_coder = LatentCoder(self.backend, tables, channels, manifest.tolerances)
        self.predictor = Predictor(self.backend, manifest)

    @classmethod
    def load(
        cls,
        bundle: str | Path | None = None,
        backend: str = "onnxruntime",
        precision: str = "fp32",
        threads: int | None = None,
        device: str = CPU,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Codec:
        """Opens a bundle folder.

        Args:
            bundle: path of the folder, or name of a packaged one; None for `$POLC_BUNDLE`, else `nano`.
            backend: `onnxruntime`, or another that is installed.
            precision: `fp32` or `fp16`, of the analysis and synthesis; the entropy path is always fp32.
            threads: CPU threads; None for the backend's default.
            device: `cpu` or `cuda`; `onnxruntime` on `cuda` is the backend `onnxruntime-cuda`.
            limits: largest images and files accepted.

        Raises:
            UsageError: no device has that name.
            BundleError: there is no such bundle, or it is damaged.
            BackendUnavailable: the backend cannot run here.
        """
        options = BackendOptions(precision, threads, device=device)
        return cls(Bundle.load(bundle, limits), backend, options, limits)

    def over(self, backend: Backend) -> Codec:
        """The same codec on another backend of the same bundle, such as a wrapper around its own."""
        return Codec(self.bundle, backend, self.options, self.limits, self.tile_pixels)

    def compress(self, image: Pixels, quality: float = 4.0, portable: bool = True) -> bytes:
        """A `.polc` file of an image.

        Args:
            image: uint8 [H,W,3], RGB, any size from 1x1.
            quality: real, 1 (smallest) to 8 (best) for the official model; rounded to 1/256.
            portable: whether the file must decode on machines and backends that round differently; that takes
                about a hundredth more bytes at most (docs/bitstream.md).

        Raises:
            ImageError: not such an array, or larger than the limits.
            UsageError: the quality is out of the bundle's range.
        """
        header = self._new_header(image, quality)
        coded = self._encode(image, header, portable)
        with span(CONTAINER):
            return coded.container(header).pack(self.limits)

    def reconstruct(self, image: Pixels, quality: float = 4.0) -> FloatArray:
        """What `decompress` will make of an image, without writing bits: float32 [1,3,H,W] in 0..1, padded.

        Arguments and errors as in `compress`.
        """
        header = self._new_header(image, quality)
        return self.transforms.synthesise(self._encode(image, header, portable=False).y_hat, header.quality)

    def decompress(self, data: bytes) -> Pixels:
        """The image of a `.polc` file, uint8 [H,W,3].

        Raises:
            BitstreamError: the file is damaged, too large, or made with another model.
        """
        return self.synthesise(self.decode(data))

    def latent(self, data: bytes) -> FloatArray:
        """The decoded latent y_hat of a `.polc` file, float32 [M, h, w] on the padded image's grid.

        Raises:
            BitstreamError: as `decompress`.
        """
        return self.decode(data).y_hat

    def infer(self, data: bytes, task: str) -> FloatArray:
        """What a vision model predicts from a `.polc` file's latent, without an image being made.

        Args:
            data: the file.
            task: name of a task in the bundle.

        Returns:
            Logits, float32: [classes]; for a segmentation [classes,H,W] on the image's pixels.

        Raises:
            UsageError: the bundle has no such task, or the image's size does not fit it.
            BitstreamError: as `decompress`.
        """
        return self.infer_many([data], task)[0]

    def infer_many(self, data: Sequence[bytes], task: str, batch_size: int = 8) -> list[FloatArray]:
        """As `infer` for several files, in their order; those of one size run in batches, at any quality.

        Args:
            data: the files.
            task: name of a task in the bundle.
            batch_size: most latents to run at once.

        Raises:
            UsageError: as `infer`; in a list of several, the message counts from 0 which file it was.
            BitstreamError: likewise.
        """
        return self.predictor.in_batches(data, self.header, self.decode, task, batch_size)

    def infer_pixels(self, data: bytes, task: str) -> FloatArray:
        """As `infer`, from the decompressed image: the baseline that makes pixels first.

        Raises:
            UsageError: as `infer`, or the bundle has no pixel graph of the task.
            BitstreamError: as `decompress`.
        """
        self.predictor.pixel_task(task)
        return self.infer_image(self.decompress(data), task)

    def header(self, data: bytes) -> Header:
        """Size and quality of a `.polc` file's image; nothing is decoded.

        Raises:
            BitstreamError: the file is damaged or too large.
        """
        return Container.unpack(data, self.limits).header

    def decode(self, data: bytes) -> Decoded:
        """The latent of a `.polc` file: decode once, then `synthesise` and `infer_latent` as often as needed.

        Raises:
            BitstreamError: as `decompress`.
        """
        with span(CONTAINER):
            container = Container.unpack(data, self.limits)
            header = container.header
            self._check_made_with(header)
        y_hat = self.latent_coder.decode(container)
        return Decoded(header, y_hat)

    def synthesise(self, decoded: Decoded) -> Pixels:
        """The image of a latent, uint8 [H,W,3]."""
        header = decoded.header
        with span(PIXELS):
            return self.transforms.draw(decoded.y_hat, header.quality, header.height, header.width)

    def infer_latent(self, decoded: Decoded, task: str) -> FloatArray:
        """As `infer`, from a latent that `decode` gave."""
        return self.predictor.from_latents([decoded], task)[0]

    def infer_image(self, image: Pixels, task: str) -> FloatArray:
        """As `infer_pixels`, from an image, uint8 [H,W,3], which nothing is done to but padding.

        Raises:
            UsageError: as `infer_pixels`.
            ImageError: not such an array, or larger than the limits.
        """
        self._check_image(image)
        return self.predictor.from_image(image, task)

    def verify(self, data: bytes) -> None:
        """Decodes every symbol and checks it; runs no synthesis.

        Raises:
            BitstreamError: as `decompress`.
        """
        self.decode(data)

    def describe(self) -> dict[str, Any]:
        """The bundle and what runs it, as JSON-able data."""
        return {"bundle": self.bundle.describe(), "backend": self.backend.describe()}

    def close(self) -> None:
        """Frees the backend's sessions."""
        self.backend.close()

    def __enter__(self) -> Codec:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_header(self, image: Pixels, quality: float) -> Header:
        height, width = self._check_image(image)
        low, high = self.bundle.manifest.quality_range
        if not low <= quality <= high:
            raise UsageError(f"quality must lie between {low:g} and {high:g}, got {quality:g}")
        manifest = self.bundle.manifest
        return Header(manifest.fingerprint[:8], manifest.codec_id[:4], width, height, quality_code(quality))

    def _encode(self, image: Pixels, header: Header, portable: bool) -> EncodedLatent:
        with span(PIXELS):
            y, z = self.transforms.analyse(pad(image), header.quality)
        return self.latent_coder.encode(y, z, header.quality, portable)

    def _check_made_with(self, header: Header) -> None:
        manifest = self.bundle.manifest
        if header.fingerprint != manifest.fingerprint[:8]:
            raise BitstreamError(
                f"made with another model: fingerprint {header.fingerprint.hex()}, "
                f"the bundle {self.bundle.name} has {manifest.fingerprint[:8].hex()}"
            )
        if header.codec_id != manifest.codec_id[:4]:
            warnings.warn(
                "made with another synthesis of the same model: the picture may differ from the encoder's",
                CodecMismatchWarning,
                stacklevel=4,
            )

    def _check_image(self, image: Pixels) -> tuple[int, int]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ImageError(f"expected uint8 [H,W,3], got {image.dtype} {list(image.shape)}")
        height, width = image.shape[:2]
        if problem := self.limits.size_problem(width, height):
            raise ImageError(problem)
        return height, width
