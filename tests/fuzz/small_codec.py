"""A codec without networks: real container, tables and rANS behind a fixed rule for means and scales."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polc_runtime import Codec
from polc_runtime.backends import FloatArray
from polc_runtime.bitstream.schedule import nine_steps
from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.bundle import Bundle, Manifest
from polc_runtime.bundle.plan import nine_step_plan
from polc_runtime.limits import Limits

CHANNELS, HYPER_CHANNELS = 8, 4
LIMITS = Limits(max_pixels=256 * 256)


class FixedRule:
    """Stands for the graphs: what they give follows from their inputs by a line of arithmetic.

    Means and scales depend on what was decoded before, so wild symbols make wild numbers, as in a network.
    """

    name = "fixed rule"

    def __init__(self) -> None:
        self.steps = nine_steps(CHANNELS)

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        if graph == "analysis":
            return self._analysis(inputs["image"])
        if graph == "hyper_synthesis":
            rough = np.abs(inputs["z_hat"]).mean(1, keepdims=True)
            return {"params": rough.repeat(4, -1).repeat(4, -2).astype(np.float32)}
        step = self.steps[int(graph.removeprefix("context_"))]
        channels, height, width = step.shape(*inputs["y_hat"].shape[2:])
        with np.errstate(over="ignore", invalid="ignore"):
            seen = inputs["y_hat"][:, :1, :height, :width] + inputs["params"][:, :, :height, :width]
            spread = np.linspace(0.1, 9, channels, dtype=np.float32)[None, :, None, None]
            means = (0.25 * seen + 0 * spread).astype(np.float32)
            scales = (spread * (1 + 0.125 * np.abs(seen))).astype(np.float32)
        return {"means": means, "scales": scales, "channel_context": inputs["params"]}

    def describe(self) -> dict[str, Any]:
        """See `Backend.describe`."""
        return {"name": self.name}

    def close(self) -> None:
        """Nothing is held."""

    def _analysis(self, image: FloatArray) -> dict[str, FloatArray]:
        blocks = image[:, :, ::16, ::16]
        y = np.concatenate([20 * blocks, 3 * blocks, blocks[:, :2]], 1)
        return {"y": y, "z": 9 * np.concatenate([blocks, blocks[:, :1]], 1)[:, :, ::4, ::4]}


def gaussian_table(scales: FloatArray) -> CdfTable:
    """A row of three standard deviations to either side for each scale."""
    radii = [max(1, int(np.ceil(3 * s))) for s in scales]
    cdf = np.zeros((len(scales), 2 * max(radii) + 3), np.int32)
    for row, scale, radius in zip(cdf, scales, radii, strict=True):
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 2) / scale) ** 2)
        weights[-1] = 0.01  # the escape
        widths = 1 + np.floor(weights / weights.sum() * (65536 - len(weights)))
        widths[radius] += 65536 - widths.sum()
        row[1 : len(widths) + 1] = np.cumsum(widths)
    lengths = np.array([2 * radius + 3 for radius in radii], np.int32)
    return CdfTable(cdf, lengths, np.array([-radius for radius in radii], np.int32))


def small_tables() -> EntropyTables:
    """Tables of the small codec."""
    scales = np.geomspace(0.11, 12, 16).astype(np.float32)
    hyper = gaussian_table(np.geomspace(0.5, 4, HYPER_CHANNELS).astype(np.float32))
    return EntropyTables(
        hyper, np.linspace(-0.4, 0.4, HYPER_CHANNELS, dtype=np.float32), gaussian_table(scales), scales
    )


def small_manifest(entropy_sha256: str) -> Manifest:
    """The packaged bundle's manifest, with the small codec's widths and without graphs."""
    manifest = Bundle.load("nano").manifest
    dims = {"dims": [CHANNELS] * 4, "hyper_dim": HYPER_CHANNELS}
    plan = nine_step_plan(dims, (1, 8))
    return dataclasses.replace(
        manifest, name="small", plan=plan, graphs=(), tasks=(), entropy_sha256=entropy_sha256
    )


def write_small_bundle(folder: Path) -> Bundle:
    """Tables and manifest of the small codec, on disk."""
    small_tables().save(folder / "entropy.npz")
    digest = hashlib.sha256((folder / "entropy.npz").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(small_manifest(digest).to_json())
    return Bundle.load(folder)


def small_codec() -> Codec:
    """The codec itself."""
    with tempfile.TemporaryDirectory() as folder:
        return Codec(write_small_bundle(Path(folder)), FixedRule(), limits=LIMITS)
