"""Times of polc beside what a user would pick instead: CompressAI's codecs through their own interface.

Usage: python tests/perf/compare_codecs.py IMAGES... [--bundle BUNDLE]... [--threads 2] [--quality 4]
CompressAI's models have random weights: their times are real, their file sizes mean nothing. Codecs take
turns image by image; the first image is run once more before, uncounted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressai.zoo import image_models

from polc_runtime import Codec
from polc_runtime.pictures.images import read_image

COMPRESSAI = {"bmshj2018-hyperprior": 4, "mbt2018-mean": 4, "cheng2020-attn": 4}
"""Models, and the quality that sets their widths."""

Times = tuple[float, float]
TimedCodec = Callable[[np.ndarray], Times]
"""uint8 [H,W,3] -> seconds to compress and to decompress."""


def clocked(compress: Callable[[], Any], decompress: Callable[[Any], Any]) -> Times:
    """Seconds of both."""
    start = time.perf_counter()
    coded = compress()
    middle = time.perf_counter()
    decompress(coded)
    return middle - start, time.perf_counter() - middle


def compressai_codec(name: str, quality: int) -> TimedCodec:
    """One of CompressAI's models on the CPU, with random weights."""
    torch.manual_seed(0)
    net = image_models[name](quality=quality, pretrained=False).eval()
    net.update()

    def run(pixels: np.ndarray) -> Times:
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            return clocked(
                lambda: net.compress(image), lambda coded: net.decompress(coded["strings"], coded["shape"])
            )

    return run


def polc_codec(bundle: str, quality: float, threads: int) -> TimedCodec:
    """A bundle, on ONNX Runtime."""
    codec = Codec.load(bundle, threads=threads)
    return lambda pixels: clocked(lambda: codec.compress(pixels, quality), codec.decompress)


def main() -> None:
    """Prints one JSON document: the median seconds of each codec."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--bundle", action="append", help="repeatable; default nano")
    parser.add_argument("--quality", type=float, default=4.0, help="of polc")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = [read_image(path.read_bytes(), name=path.name).pixels for path in options.images]
    codecs = {
        f"polc {Path(bundle).name}": polc_codec(bundle, options.quality, options.threads)
        for bundle in options.bundle or ["nano"]
    }
    codecs |= {name: compressai_codec(name, quality) for name, quality in COMPRESSAI.items()}
    times: dict[str, list[Times]] = {name: [] for name in codecs}
    for pixels in [pictures[0], *pictures]:
        for name, codec in codecs.items():
            times[name].append(codec(pixels))
    medians = {}
    for name, found in times.items():
        compress, decompress = zip(*found[1:], strict=True)
        medians[name] = {
            "compress_s": statistics.median(compress),
            "decompress_s": statistics.median(decompress),
        }
    sizes = sorted({f"{p.shape[1]}x{p.shape[0]}" for p in pictures})
    facts = {"images": len(pictures), "sizes": sizes, "threads": options.threads, "torch": torch.__version__}
    print(json.dumps({**facts, "codecs": medians}, indent=2))


if __name__ == "__main__":
    main()
