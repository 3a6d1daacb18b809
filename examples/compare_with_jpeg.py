"""Draws the README's picture: one photo, coded by polc-nano and by JPEG in about as many bytes.

Usage: python examples/compare_with_jpeg.py OUT.png

The photo is matplotlib's portrait of Grace Hopper (US Navy, public domain). It is coded whole, and the PSNR
is that of the whole; the picture shows a part of it. JPEG gets the smallest file that is not smaller than
polc-nano's.
"""

import io
import sys

import matplotlib.cbook
import numpy as np
from matplotlib import pyplot as plt
from PIL import Image

from polc_runtime import Codec

QUALITY = 2.9375  # 0.2 bits a pixel for this photo
ROWS, COLUMNS = slice(20, 320), slice(110, 410)

with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
    photo = np.asarray(Image.open(file).convert("RGB"))


def jpeg(quality: int) -> bytes:
    """The photo as a JPEG file with 4:2:0 chroma and optimised tables."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def caption(name: str, pixels: np.ndarray, data: bytes) -> str:
    """Name, size, rate and PSNR of a coded photo."""
    psnr = 10 * np.log10(255**2 / np.mean((photo.astype(float) - pixels) ** 2))
    return f"{name}\n{len(data)} bytes, {8 * len(data) / photo[..., 0].size:.2f} bpp, {psnr:.1f} dB"


with Codec.load("nano") as codec:
    polc_file = codec.compress(photo, QUALITY)
    decoded = codec.decompress(polc_file)
jpeg_file = next(file for file in map(jpeg, range(1, 100)) if len(file) >= len(polc_file))
from_jpeg = np.asarray(Image.open(io.BytesIO(jpeg_file)))

panels = [
    (f"original\n{photo.nbytes} bytes of pixels", photo),
    (caption("polc-nano", decoded, polc_file), decoded),
    (caption("JPEG", from_jpeg, jpeg_file), from_jpeg),
]
figure, axes = plt.subplots(1, len(panels), figsize=(8.6, 3.4), dpi=100, layout="constrained")
for axis, (title, pixels) in zip(axes, panels, strict=True):
    axis.imshow(pixels[ROWS, COLUMNS])
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
figure.savefig(sys.argv[1])
