"""Times of polc beside CompressAI's own interface, on mbt2018-mean with random weights, exported for polc.

Usage: python tests/perf/compare_compressai.py IMAGES... [--channels 192 320] [--threads 2]
Both take turns image by image, the first image once more before, uncounted. Also printed: in how many symbols
of the latent the encoders differ (values between two integers, which float arithmetic rounds either way), and
by how many levels the images of one latent differ.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from compressai_models import random_model

from polc_export import ExportOptions, export_bundle
from polc_runtime import Codec
from polc_runtime.pictures.images import read_image

MODEL = "mbt2018-mean"


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """The time that something takes, and what it gives."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def exported(network: Any, folder: Path) -> Path:
    """The network's bundle."""
    torch.save({"state_dict": network.state_dict()}, folder / "model.pth.tar")
    return export_bundle(
        folder / "model.pth.tar", folder / "bundle", ExportOptions(validate=False)
    ).bundle.path


def their_latent(network: Any, coded: dict[str, Any]) -> np.ndarray:
    """The latent [M,h,w] that compressai decodes from its byte strings, of a network with a hyper-latent."""
    z_hat = network.entropy_bottleneck.decompress(coded["strings"][1], coded["shape"])
    scales, means = network.h_s(z_hat).chunk(2, 1)
    indexes = network.gaussian_conditional.build_indexes(scales)
    return network.gaussian_conditional.decompress(coded["strings"][0], indexes, means=means)[0].numpy()


def compare(codec: Codec, network: Any, pixels: np.ndarray) -> dict[str, float]:
    """Seconds of both to compress and to decompress an image, uint8 [H,W,3], and what differs."""
    height, width = pixels.shape[:2]
    size = codec.plan.padded_size(height, width)
    padded = np.pad(pixels, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        their_compress, coded = seconds(lambda: network.compress(image))
        our_compress, data = seconds(lambda: codec.compress(pixels))
        their_decompress, found = seconds(lambda: network.decompress(coded["strings"], coded["shape"]))
        our_decompress, _ = seconds(lambda: codec.decompress(data))
    with torch.inference_mode():
        latent = their_latent(network, coded)
    expected = found["x_hat"][0, :, :height, :width].permute(1, 2, 0).mul(255).round().numpy()
    drawn = codec.networks.draw(latent, codec.plan.quality.default, height, width)
    return {
        "compressai_compress": their_compress,
        "polc_compress": our_compress,
        "compressai_decompress": their_decompress,
        "polc_decompress": our_decompress,
        "symbols_that_differ": float((np.abs(latent - codec.latent(data)) > 0.5).sum()),
        "largest_difference": float(np.abs(drawn.astype(int) - expected).max()),
        "bytes_above_strings": len(data) - sum(len(each[0]) for each in coded["strings"]),
    }


def main() -> None:
    """Prints one JSON document: median seconds of both, their ratio, and the largest differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--channels", nargs=2, type=int, default=(192, 320), metavar=("N", "M"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = [read_image(path).pixels for path in options.images]
    network = random_model(MODEL, *options.channels)
    with tempfile.TemporaryDirectory() as folder:
        codec = Codec.load(exported(network, Path(folder)), threads=options.threads)
        rows = [compare(codec, network, pixels) for pixels in [images[0], *images]][1:]
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    for way in ("compress", "decompress"):
        medians[f"{way}_ratio"] = medians[f"polc_{way}"] / medians[f"compressai_{way}"]
    medians["both_ways_ratio"] = sum(medians[f"polc_{way}"] for way in ("compress", "decompress")) / sum(
        medians[f"compressai_{way}"] for way in ("compress", "decompress")
    )
    worst = {key: max(row[key] for row in rows) for key in ("symbols_that_differ", "largest_difference")}
    facts = {"model": MODEL, "channels": options.channels, "threads": options.threads}
    print(
        json.dumps({**facts, "torch": torch.__version__, "images": len(rows), **medians, **worst}, indent=2)
    )


if __name__ == "__main__":
    main()
