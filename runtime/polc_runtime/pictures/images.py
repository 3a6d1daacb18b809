"""Image files in and out: any file that Pillow reads becomes 8-bit RGB, and pixels the graphs' tensor."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from ..bitstream.plan import Pad
from ..errors import ImageError, ImageLimitError, ResourceError, UsageError
from ..files.inputs import open_file
from ..files.outputs import write_file
from ..limits import DEFAULT_LIMITS, Limits

Pixels = NDArray[np.uint8]

ImageFileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image
"""An image file: its path, its bytes, or an open binary file; or what Pillow has opened."""

OUTPUT_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".bmp": ("BMP", {}),
    ".ppm": ("PPM", {}),
}
"""Suffix -> Pillow's format and its options. All are lossless but `.jpg`."""

_SAME_SUFFIX = {".jpeg": ".jpg", ".tiff": ".tif"}

INPUT_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".gif", ".tif", ".tiff"}
    | {".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi"}
)
"""Files taken from a folder; a file named by itself may have any suffix."""

_REFUSED_FORMATS = frozenset({"EPS", "WMF", "IPTC"})
"""Read by running another program, by Windows' own renderer, or as whatever is inside, those two included."""
_TRANSPARENT = "transparent parts are laid on white"
_DEEP_COLOUR = "16-bit colour is cut to its upper 8 bits"
_NO_MEMORY = "not enough memory for an image of this size"


class ReadImage(NamedTuple):
    """An image as the codec takes it, and what had to be changed to get there.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        notices: one sentence for each change the user might not expect; empty for an ordinary image.
    """

    pixels: Pixels
    notices: tuple[str, ...]


def read_image(
    source: ImageFileSource, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> ReadImage:
    """Reads the first frame of an image as 8-bit RGB. Threads may read at once.

    The EXIF rotation is applied, alpha laid on white, an embedded ICC profile converted to sRGB unless it
    changes next to nothing (or cannot be used), and CMYK, grey and palettes converted. 16-bit grey is scaled
    by 1/257 and rounded; 16-bit colour comes from Pillow cut to the upper 8 bits, up to one level below the
    rounded value, which a notice says. Integer grey may hold 0..65535 and floating-point grey 0..1.

    Args:
        source: a path, an open binary file, the file's bytes, or an image that Pillow has opened.
        limits: bounds on the image's size, checked before any pixel is decoded.
        name: what messages call the image; by default the path, or the open file's name.

    Raises:
        UsageError: the file cannot be opened, or `source` is something else.
        ImageError: not an image, damaged, truncated, empty, or in a colour mode that is not read; above the
            limits, an `ImageLimitError`.
        ResourceError: not enough memory.
    """
    name = name or _name_of(source)
    with _opened(source) as stream:
        image, raw_modes = _decode(stream, limits, name)
    try:
        pixels, notices = _to_rgb(image, raw_modes, name)
        return ReadImage(np.ascontiguousarray(_turned(pixels, _orientation(image))), notices)
    except MemoryError:
        raise ResourceError(f"{name}: {_NO_MEMORY}") from None


def write_image(
    pixels: Pixels,
    destination: str | os.PathLike[str] | BinaryIO,
    format: str | None = None,
    force: bool = False,
) -> None:
    """Writes uint8 [H, W, 3] pixels as an image file; a path is written whole or not at all.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        destination: a path, or an open binary file.
        format: a suffix of `OUTPUT_FORMATS`, with or without the dot; by default the path's, and PNG for a
            stream.
        force: overwrite a file that exists.

    Raises:
        UsageError: an unknown format or suffix, the file exists and `force` is off, or it cannot be written.
        ImageError: the format cannot hold these pixels.
        ResourceError: the disk is full.
    """
    if isinstance(destination, str | os.PathLike):
        destination = Path(destination)
        suffix = output_suffix(format if format is not None else destination.suffix)
        write_file(destination, encode_image(pixels, suffix), force)
    else:
        destination.write(encode_image(pixels, format or ".png"))


def encode_image(pixels: Pixels, format: str = ".png") -> bytes:
    """The bytes of an image file of uint8 [H, W, 3] `pixels`; `format` and errors as in `write_image`."""
    suffix = output_suffix(format)
    pillow_format, options = OUTPUT_FORMATS[suffix]
    _check_pixels(pixels)
    stream = io.BytesIO()
    try:
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, pillow_format, **options)
    except (OSError, ValueError) as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ImageError(f"a {size} image cannot be written as {pillow_format} ({_reason(error)})") from error
    return stream.getvalue()


def output_suffix(format: str) -> str:
    """The suffix in `OUTPUT_FORMATS` that a format name or suffix stands for.

    Raises:
        UsageError: there is none; the message lists those there are.
    """
    suffix = "." + format.lower().lstrip(".")
    suffix = _SAME_SUFFIX.get(suffix, suffix)
    if suffix not in OUTPUT_FORMATS:
        known = " ".join(OUTPUT_FORMATS)
        raise UsageError(f"images are written as one of {known}; got {format!r}")
    return suffix


def pad(pixels: Pixels, rule: Pad) -> Pixels:
    """Pads uint8 [h, w, 3] to [H, W, 3] = `rule.padded_size(h, w)` by repeating the last row and column.

    Raises:
        ImageError: `pixels` has another type or shape.
    """
    _check_pixels(pixels)
    height, width = pixels.shape[:2]
    full_height, full_width = rule.padded_size(height, width)
    return np.pad(pixels, ((0, full_height - height), (0, full_width - width), (0, 0)), mode="edge")


def to_tensor(pixels: Pixels) -> NDArray[np.float32]:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in 0..1, contiguous.

    Raises:
        ImageError: `pixels` has another type or shape.
    """
    _check_pixels(pixels)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype=np.float32)
    planes /= np.float32(255)
    return planes


def from_tensor(image: NDArray[np.float32], height: int, width: int) -> Pixels:
    """float32 [1, 3, H, W] -> uint8 [height, width, 3]: the upper left part, cut to 0..1, round(255 x)."""
    part = image[0, :, :height, :width].transpose(1, 2, 0)
    return np.rint(np.clip(part, 0, 1) * np.float32(255)).astype(np.uint8, order="C")


def _check_pixels(pixels: Pixels) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"an image is uint8 [H, W, 3]; got {pixels.dtype} {list(pixels.shape)}")


def _name_of(source: ImageFileSource) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return name if isinstance(name, str) else "image"


@contextmanager
def _opened(source: ImageFileSource) -> Iterator[BinaryIO | Image.Image]:
    if isinstance(source, str | os.PathLike):
        with open_file(Path(source)) as stream:
            yield stream
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif isinstance(source, Image.Image):
        yield source
    elif hasattr(source, "read"):
        yield source if source.seekable() else io.BytesIO(source.read())
    else:
        raise UsageError(
            "an image must be an array, a path, the bytes of an image file or a Pillow image; "
            f"got {type(source).__name__}"
        )


def _decode(stream: BinaryIO | Image.Image, limits: Limits, name: str) -> tuple[Image.Image, frozenset[str]]:
    """The first frame, decoded, and the raw modes it was stored in: Pillow forgets them on decoding."""
    with _pillow_errors(name):
        image = stream if isinstance(stream, Image.Image) else _header(stream)
    try:
        limits.check_image(*image.size)
    except ImageError as error:
        raise type(error)(f"{name}: {error}") from None
    with _pillow_errors(name):
        raw_modes = _raw_modes(image)
        image.load()
    return image, raw_modes


def _header(stream: BinaryIO) -> Image.Image:
    """`Image.open`, without the check of the size that a global of the process sets.

    Raises:
        UnidentifiedImageError: no plugin takes the file.
    """
    stream.seek(0)
    prefix = stream.read(16)
    if not prefix:
        raise Image.UnidentifiedImageError("the file is empty")
    for name in safe_formats():
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept(prefix) if accept else True
            if accepted and not isinstance(accepted, str):  # a text says what Pillow was built without
                stream.seek(0)
                return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # by which plugins say "not mine"
            continue
    raise Image.UnidentifiedImageError("not an image of a kind that can be read")


@contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Turns what Pillow raises on bad files into `ImageError`; on hostile ones that can be any exception.

    Nothing but calls of Pillow may stand inside.
    """
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{name}: {error}") from None
    except Image.DecompressionBombError as error:
        raise ImageLimitError(
            f"{name}: Pillow refuses a part of this size, see PIL.Image.MAX_IMAGE_PIXELS ({_reason(error)})"
        ) from None
    except MemoryError:
        raise ResourceError(f"{name}: {_NO_MEMORY}") from None
    except Exception as error:
        raise ImageError(f"{name}: the image is damaged or not supported ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def safe_formats() -> list[str]:
    """Names of the formats that are read; some of Pillow's would run other programs."""
    Image.init()
    return [name for name in Image.ID if name not in _REFUSED_FORMATS]


def _raw_modes(image: Image.Image) -> frozenset[str]:
    """What the file's own samples are, as Pillow tells its decoder: "RGB;16B", "I;12", "L"..."""
    arguments = (tile[3] for tile in image.tile) if isinstance(image, ImageFile.ImageFile) else ()
    parts = (part for each in arguments for part in (each if isinstance(each, tuple) else (each,)))
    return frozenset(part for part in parts if isinstance(part, str))


def _to_rgb(image: Image.Image, raw_modes: frozenset[str], name: str) -> tuple[Pixels, tuple[str, ...]]:
    """Pixels of a decoded image, not yet turned upright, and the notices."""
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        return _in_srgb(Image.fromarray(_grey_8_bit(image, raw_modes, name)), profile)
    deep = (_DEEP_COLOUR,) if any(";16" in raw for raw in raw_modes) else ()
    with _pillow_errors(name):
        colour, alpha = _split(image)
    pixels, notices = _in_srgb(colour, profile)
    if alpha is None or (weights := np.asarray(alpha)).min() == 255:
        return pixels, deep + notices
    return _on_white(pixels, weights), deep + notices + (_TRANSPARENT,)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours, as L, RGB or CMYK, and the alpha channel, if there is one."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        grey = image.mode in ("1", "L", "LA")
        return rgba.getchannel("R") if grey else rgba.convert("RGB"), rgba.getchannel("A")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB"), None


def _grey_8_bit(image: Image.Image, raw_modes: frozenset[str], name: str) -> Pixels:
    """8-bit grey [H, W] of integers (0..65535; 0..4095 of a 12-bit file) or floating-point values (0..1)."""
    values = np.asarray(image)
    peak = 1 if image.mode == "F" else 4095 if "I;12" in raw_modes else 65535
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= peak):
        raise ImageError(
            f"{name}: grey values must lie in 0..{peak}, but go from {low:g} to {high:g}; scale them first"
        )
    grey = np.rint(values * np.float32(255 / peak)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return grey


def _on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """(alpha * pixels + (255 - alpha) * 255) / 255, rounded."""
    weight = alpha[..., None].astype(np.uint32)
    return ((weight * pixels + (255 - weight) * 255 + 127) // 255).astype(np.uint8)


def _in_srgb(image: Image.Image, profile: Any) -> tuple[Pixels, tuple[str, ...]]:
    """RGB pixels of an L, RGB or CMYK image, through its profile where that changes more than two levels."""
    transform = _to_srgb(profile, image.mode) if isinstance(profile, bytes) and profile else None
    if transform is None or _is_srgb(transform, image.mode):
        return np.array(image.convert("RGB")), ()
    return np.array(transform.apply(image)), ("colours are converted from the embedded ICC profile to sRGB",)


def _to_srgb(profile: bytes, mode: str) -> Any:
    """The transform from a profile to sRGB; None where it cannot be used."""
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:  # a profile that is damaged or of another colour space, or Pillow without LittleCMS
        return None


def _is_srgb(transform: Any, mode: str) -> bool:
    """Whether a transform to sRGB moves no colour by more than two levels: rounding, not another space."""
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).astype(np.uint8)
    axes = np.meshgrid(*[levels] * len(mode), indexing="ij")
    colours = Image.fromarray(np.stack(axes, -1).reshape(1, -1, len(mode)).squeeze(-1 if mode == "L" else ()))
    moved = np.asarray(transform.apply(colours), np.int16) - np.asarray(colours.convert("RGB"), np.int16)
    return bool(np.abs(moved).max() <= 2)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8; 1 where there is none or the EXIF block is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    return _TURNS.get(orientation, lambda p: p)(pixels)
