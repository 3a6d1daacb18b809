"""Codecs for files of several models: a file's by its fingerprint, a ladder's by the quality asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ..bitstream.container import Container
from ..bundle import Ladder
from ..bundle.find import find_by_fingerprint, find_folder, fingerprint_of
from ..bundle.ladder import is_ladder
from ..errors import WrongModelError
from ..limits import DEFAULT_LIMITS, Limits
from ..pictures.images import Pixels
from ..pictures.sources import ImageSource
from .codec import Codec
from .latent import Decoded


class CodecPool:
    """Opens the codecs that files and qualities need, each once; threads may share it.

    A context manager: leaving it closes them.

    >>> with CodecPool() as codecs:  # doctest: +SKIP
    ...     pixels = codecs.decompress(data)  # whichever known bundle made the file

    Args:
        bundle: a bundle or a ladder, by path or packaged name, whose files alone are decoded; None to encode
            with `$POLC_BUNDLE`, else the packaged default, and to find each file's bundle among that, the
            packaged ones and those in the folders of `$POLC_BUNDLES`.
        open_codec: opens a bundle's folder; None for `Codec.load` with its defaults.
        limits: largest files accepted.
    """

    def __init__(
        self,
        bundle: str | Path | None = None,
        open_codec: Callable[[Path], Codec] | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        self._named = bundle is not None
        self._folder = find_folder(bundle)
        self._ladder = Ladder.load(self._folder, limits) if is_ladder(self._folder) else None
        self._open = open_codec or (lambda path: Codec.load(path, limits=limits))
        self._codecs: dict[Path, Codec] = {}
        self._folders: dict[bytes, Path] = {}
        self._lock = threading.Lock()

    @property
    def qualities(self) -> tuple[float, ...] | None:
        """The qualities of the ladder, rising; None where a single bundle encodes."""
        return self._ladder.qualities if self._ladder else None

    def to_encode(self, quality: float | None = None) -> Codec:
        """The codec that encodes at a quality; of a ladder None gives the middle rung.

        Raises:
            UsageError: the ladder has no bundle of that quality.
            BundleError: the bundle cannot be opened.
        """
        if self._ladder is None:
            return self._codec(self._folder)
        rungs = self._ladder.rungs
        rung = rungs[(len(rungs) - 1) // 2] if quality is None else self._ladder.rung(quality)
        return self._codec(rung.path)

    def to_decode(self, data: bytes | Container) -> Codec:
        """The codec that decodes a file.

        Raises:
            BitstreamError: it is damaged; `WrongModelError` where no known bundle made it.
            BundleError: the bundle cannot be opened.
        """
        container = data if isinstance(data, Container) else Container.unpack(data, self.limits)
        fingerprint = container.header.fingerprint
        if fingerprint not in self._folders:
            self._folders[fingerprint] = self._folder_of(fingerprint)
        return self._codec(self._folders[fingerprint])

    def compress(self, image: ImageSource, quality: float | None = None, portable: bool = True) -> bytes:
        """A `.polc` file of an image, as `Codec.compress`; a ladder's bundle of that quality makes it."""
        codec = self.to_encode(quality)
        return codec.compress(image, None if self._ladder else quality, portable)

    def decode(self, data: bytes) -> Decoded:
        """The latent of a `.polc` file, as `Codec.decode`."""
        container = Container.unpack(data, self.limits)
        return self.to_decode(container).decode(container)

    def decompress(self, data: bytes) -> Pixels:
        """The image of a `.polc` file, uint8 [H,W,3], as `Codec.decompress`."""
        container = Container.unpack(data, self.limits)
        return self.to_decode(container).decompress(container)

    def close(self) -> None:
        """Closes every codec that was opened."""
        with self._lock:
            for codec in self._codecs.values():
                codec.close()
            self._codecs.clear()

    def __enter__(self) -> CodecPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _folder_of(self, fingerprint: bytes) -> Path:
        if self._ladder is not None:
            for rung in self._ladder.rungs:
                if fingerprint_of(rung.path, self.limits).startswith(fingerprint):
                    return rung.path
            raise WrongModelError(
                f"made with another model: fingerprint {fingerprint.hex()}, which no bundle of "
                f"{self._folder} has"
            )
        own = fingerprint_of(self._folder, self.limits).startswith(fingerprint)
        return self._folder if self._named or own else find_by_fingerprint(fingerprint, self.limits)

    def _codec(self, folder: Path) -> Codec:
        with self._lock:
            if folder not in self._codecs:
                self._codecs[folder] = self._open(folder)
            return self._codecs[folder]
