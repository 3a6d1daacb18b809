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
from ..bundle import Bundle, Variant
from ..errors import CodecMismatchWarning, ImageError, ImageLimitError, WrongModelError
from ..limits import DEFAULT_LIMITS, Limits
from ..pictures.images import Pixels, pad
from ..pictures.sources import ImageSource, pixels_of
from ..trace import span
from ..workers import READ
from .latent import Decoded, EncodedLatent, LatentCoder
from .predict import Predictor
from .tiles import TILE_PIXELS
from .transforms import ImageNetworks

PIXELS, CONTAINER = "pixels", "container"
"""Spans of `polc_runtime.trace`: between pixels and arrays, and between file and streams."""


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
        self.networks = ImageNetworks(self.backend, manifest, self.options.precision, tile_pixels)
        self.plan = manifest.plan
        self.latent_coder = LatentCoder(self.backend, bundle.entropy_tables(), self.plan, manifest.tolerances)
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

    def compress(
        self,
        image: ImageSource,
        quality: float | None = None,
        portable: bool = True,
        variant: str | None = None,
    ) -> bytes:
        """A `.polc` file of an image.

        Args:
            image: RGB pixels, uint8 [H,W,3], any size from 1x1; or the path of an image file, its bytes, or a
                Pillow image, which are read as `polc compress` reads them.
            quality: real, from the smallest (fewest bytes) to the largest of the bundle, 1 to 8 for the
                official model; rounded to 1/256. None for the bundle's default.
            portable: whether the file must decode on machines and backends that round differently; that takes
                about a hundredth more bytes at most (docs/bitstream.md).
            variant: name of the image networks to use; None for the bundle's own.

        Raises:
            ImageError: not such an array, or the file cannot be read as an image.
            LimitError: the image, or its file, is larger than the limits.
            UsageError: the quality is out of the bundle's range, or there is no such variant.
            BundleError: the bundle's graphs give what cannot be coded.
        """
        with span(READ):
            pixels = pixels_of(image, self.limits)
        networks = self.bundle.manifest.variant(variant)
        header = self._new_header(pixels, quality, networks)
        coded = self._encode(pixels, header, portable, networks)
        with span(CONTAINER):
            return coded.container(header).pack(self.limits)

    def reconstruct(
        self, image: ImageSource, quality: float | None = None, variant: str | None = None
    ) -> FloatArray:
        """What `decompress` will make of an image, before rounding to whole numbers.

        Arguments and errors as in `compress`.

        Returns:
            float32 [1,3,H,W] in 0..1, padded.
        """
        pixels = pixels_of(image, self.limits)
        networks = self.bundle.manifest.variant(variant)
        header = self._new_header(pixels, quality, networks)
        y, z = self._analyse(pixels, header, networks)
        y_hat = self.latent_coder.quantised(y, z, header.quality)
        return self.networks.synthesise(y_hat, header.quality, networks.synthesis)

    def decompress(self, data: bytes | Container, variant: str | None = None) -> Pixels:
        """The image of a `.polc` file, uint8 [H,W,3].

        Args:
            data: the file's bytes, or what `Container.unpack` gave for them.
            variant: name of the image networks to use; None for those that the file was made with.

        Raises:
            BitstreamError: the file is damaged, too large, or made with another model.
            UsageError: there is no such variant.
        """
        self.bundle.manifest.variant(variant)
        return self.synthesise(self.decode(data), variant)

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

    def decode(self, data: bytes | Container) -> Decoded:
        """The latent of a `.polc` file: decode once, then `synthesise` and `infer_latent` as often as needed.

        Args:
            data: the file's bytes, or what `Container.unpack` gave for them.

        Raises:
            BitstreamError: as `decompress`.
        """
        with span(CONTAINER):
            container = data if isinstance(data, Container) else Container.unpack(data, self.limits)
            header = container.header
            self._check_made_with(header)
        y_hat = self.latent_coder.decode(container)
        return Decoded(header, y_hat)

    def synthesise(self, decoded: Decoded, variant: str | None = None) -> Pixels:
        """The image of a latent, uint8 [H,W,3].

        Args:
            decoded: the latent.
            variant: name of the image networks to use; None for those that the file was made with.

        Raises:
            UsageError: there is no such variant.
        """
        header = decoded.header
        networks = self._networks_of(header, variant)
        with span(PIXELS):
            return self.networks.draw(
                decoded.y_hat, header.quality, header.height, header.width, networks.synthesis
            )

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

    def _new_header(self, pixels: Pixels, quality: float | None, networks: Variant) -> Header:
        height, width = self._check_image(pixels)
        offered = self.plan.quality
        code = quality_code(offered.default if quality is None else quality, offered.min, offered.max)
        return Header(self.bundle.manifest.fingerprint[:8], networks.codec_id[:4], width, height, code)

    def _analyse(
        self, pixels: Pixels, header: Header, networks: Variant
    ) -> tuple[FloatArray, FloatArray | None]:
        with span(PIXELS):
            padded = pad(pixels, self.plan.pad)
            return self.networks.analyse(padded, header.quality, networks.analysis)

    def _encode(self, pixels: Pixels, header: Header, portable: bool, networks: Variant) -> EncodedLatent:
        y, z = self._analyse(pixels, header, networks)
        return self.latent_coder.encode(y, z, header.quality, portable)

    def _networks_of(self, header: Header, variant: str | None) -> Variant:
        """What draws a file: the variant named, the one it was made with, or the bundle's own."""
        manifest = self.bundle.manifest
        made_with = None if variant else manifest.variant_of(header.codec_id)
        return made_with or manifest.variant(variant)

    def _check_made_with(self, header: Header) -> None:
        manifest = self.bundle.manifest
        if header.fingerprint != manifest.fingerprint[:8]:
            raise WrongModelError(
                f"made with another model: fingerprint {header.fingerprint.hex()}, "
                f"the bundle {self.bundle.name} has {manifest.fingerprint[:8].hex()}"
            )
        if manifest.variant_of(header.codec_id) is None:
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
            raise ImageLimitError(problem)
        return height, width
