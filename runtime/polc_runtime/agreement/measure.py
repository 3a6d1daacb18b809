"""Codes pictures with each of several backends and decodes them with all: differences, losses, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..backends import Backend, FloatArray
from ..backends.wrapper import BackendWrapper
from ..bitstream.calibration import (
    LARGEST_EXPONENT,
    LEAST_EXPONENT,
    Calibration,
    Decisions,
    Edges,
    Exponents,
    Rows,
    Tolerances,
)
from ..bitstream.container import Container, Header, quality_code
from ..codec import Codec
from ..codec.latent import LatentCoder
from ..errors import BitstreamError
from ..pictures.images import Pixels, pad
from .settings import NoisyBackend

SAME = 0.25
"""Latents with the same symbols differ by what their means do, other symbols by about 1 or more."""

_REFERENCE = 0


class Recorder(BackendWrapper):
    """Another backend, which keeps what the context graphs gave.

    Attributes:
        scales: of the coding steps since `forget`, each float32 [n].
        means: likewise.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.scales: list[FloatArray] = []
        self.means: list[FloatArray] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """See `Backend.run`."""
        outputs = self.backend.run(graph, inputs)
        if "scales" in outputs:
            self.scales.append(outputs["scales"].ravel())
            self.means.append(outputs["means"].ravel())
        return outputs

    def forget(self) -> None:
        """Drops what was kept."""
        self.scales, self.means = [], []

    def close(self) -> None:
        """See `Backend.close`."""


class Agreement:
    """Counts, over pictures and qualities, how far codecs of one bundle agree.

    Args:
        codecs: one for each way to run the model; the first analyses the pictures for all.
        tolerances: to calibrate for.
        margin: how many times the largest difference a proposed tolerance is, at least.
    """

    def __init__(self, codecs: Sequence[Codec], tolerances: Tolerances, margin: float) -> None:
        self.codec = codecs[_REFERENCE]
        self.tolerances = tolerances
        self.margin = margin
        self.files = 0
        tables, plan = self.codec.latent_coder.tables, self.codec.plan
        self.steps = len(plan.steps)
        self.least_scale = float(tables.scale_table[0])
        self.recorders = [Recorder(codec.backend) for codec in codecs]
        self.coders = [LatentCoder(recorder, tables, plan, tolerances) for recorder in self.recorders]
        self.quiet = [i for i, codec in enumerate(codecs) if not isinstance(codec.backend, NoisyBackend)]
        count = len(codecs)
        self.lost = {calibrated: np.zeros((count, count), np.int64) for calibrated in (False, True)}
        self.qualities: dict[float, _AtQuality] = {}

    def add(self, pixels: Pixels, quality: float) -> str:
        """Codes a picture with every codec and decodes it with all.

        Args:
            pixels: uint8 [H,W,3].
            quality: to code at.

        Returns:
            What was found, in words.
        """
        manifest = self.codec.bundle.manifest
        height, width = pixels.shape[:2]
        code = quality_code(quality, *manifest.quality_range)
        header = Header(manifest.fingerprint[:8], manifest.codec_id[:4], width, height, code)
        y, z = self.codec.networks.analyse(pad(pixels, self.codec.plan.pad), header.quality)
        encoded = [coder.encode(y, z, header.quality) for coder in self.coders]
        before = {calibrated: int(lost.sum()) for calibrated, lost in self.lost.items()}
        at_quality = self.qualities.setdefault(header.quality, _AtQuality(len(self.coders), self.steps))
        known: dict[bytes, dict[bool, list[bool]]] = {}  # equal files decode equally, and are decoded once
        for index, found in enumerate(encoded):
            container = found.container(header)
            data = container.pack()
            if data not in known:
                known[data] = self._lost_by(
                    container, found.y_hat, at_quality if index == _REFERENCE else None
                )
            for calibrated, lost in self.lost.items():
                lost[index] += known[data][calibrated]
        at_quality.costs.append(_cost(encoded[_REFERENCE].container(header)))
        self.files += 1
        now = {calibrated: int(lost.sum()) - before[calibrated] for calibrated, lost in self.lost.items()}
        pairs = len(self.coders) ** 2
        return f"of {pairs} decodings {now[False]} lost without calibration, {now[True]} with it"

    def proposed(self) -> Tolerances:
        """For each quality, the least tolerances that keep the margin."""
        rows = ((quality, found.proposed(self.margin)) for quality, found in sorted(self.qualities.items()))
        return Tolerances(tuple(rows))

    def document(self) -> dict[str, Any]:
        """What was found, as JSON-able data."""
        return {
            "files_of_each": self.files,
            "lost": self.lost[True].tolist(),
            "lost_without_calibration": self.lost[False].tolist(),
            "margin": self.margin,
            "proposed_tolerances": self.proposed().to_list(),
            "qualities": [
                {"quality": quality, "exponents": list(self.tolerances.at(quality)), **found.document()}
                for quality, found in sorted(self.qualities.items())
            ],
        }

    def _lost_by(
        self, container: Container, y_hat: FloatArray, at_quality: _AtQuality | None
    ) -> dict[bool, list[bool]]:
        """For each decoder, whether it loses a file with its calibration, and without.

        Where the calibration changes no row, both are one computation, which is done once.
        """
        assert container.calibration is not None
        lost, changed = [], []
        for coder in self.coders:
            watched = _Watched(**vars(container.calibration))
            lost.append(not self._decodes(coder, replace(container, calibration=watched), y_hat))
            changed.append(bool(watched.changed))
        if at_quality is not None:
            self._add_differences(at_quality)
        bare = replace(container, calibration=None)
        without = [
            not self._decodes(coder, bare, y_hat) if differs else found
            for coder, differs, found in zip(self.coders, changed, lost, strict=True)
        ]
        return {True: lost, False: without}

    def _decodes(self, coder: LatentCoder, container: Container, y_hat: FloatArray) -> bool:
        recorder = coder.backend
        assert isinstance(recorder, Recorder)
        recorder.forget()
        try:
            found = coder.decode(container)
        except BitstreamError:
            return False
        return bool(np.abs(found - y_hat).max() < SAME)

    def _add_differences(self, found: _AtQuality) -> None:
        """Takes the differences between all decoders of one file; those that lost it are left out."""
        whole = [i for i in self.quiet if len(self.recorders[i].scales) == self.steps]
        for step in range(self.steps):
            first = self.recorders[_REFERENCE].scales[step]
            matters = first > 0.9 * self.least_scale  # below the table nothing is decided
            unit = np.maximum(first, self.least_scale)
            scales = np.stack([self.recorders[i].scales[step] for i in whole])
            means = np.stack([self.recorders[i].means[step] for i in whole])
            spread = (np.ptp(scales, axis=0) / unit).max(initial=0, where=matters)
            found.scales[step] = max(found.scales[step], spread)
            found.means[step] = max(found.means[step], np.ptp(means, axis=0).max(initial=0))
            for row, i in zip(scales, whole, strict=True):
                apart = (np.abs(row - first) / unit).max(initial=0, where=matters)
                found.from_first[i, step] = max(found.from_first[i, step], apart)


@dataclass(frozen=True)
class _Watched(Calibration):
    """A calibration that notes the steps in which it changed a row."""

    changed: list[int] = field(default_factory=list)

    def correct(self, own: Decisions, edges: Edges) -> Rows:
        """See `Calibration.correct`."""
        rows = super().correct(own, edges)
        if (rows != own.rows).any():
            self.changed.append(own.step)
        return rows


class _AtQuality:
    """What was found at one quality, with so many ways to run the model.

    Attributes:
        scales: largest difference between any two, relative to the scale, by coding step.
        means: largest difference of the means.
        from_first: difference of the scales from the first way's, by way and step.
        costs: of each file, the bytes that the calibration adds, and those of the file without.
    """

    def __init__(self, count: int, steps: int) -> None:
        self.scales = np.zeros(steps)
        self.means = np.zeros(steps)
        self.from_first = np.zeros((count, steps))
        self.costs: list[tuple[int, int]] = []

    def proposed(self, margin: float) -> Exponents:
        """Of each coding step, the largest exponent whose tolerance keeps the margin."""
        largest = np.maximum(self.scales * margin, 2.0**-LARGEST_EXPONENT)
        return tuple(max(math.floor(-math.log2(value)), LEAST_EXPONENT) for value in largest)

    def document(self) -> dict[str, Any]:
        """As JSON-able data."""
        added, sizes = np.array(self.costs, np.float64).T
        return {
            "scale_difference": self.scales.tolist(),
            "scale_difference_from_first": self.from_first.tolist(),
            "mean_difference": self.means.tolist(),
            "calibration_bytes": float(added.mean()),
            "calibration_share": float(added.sum() / sizes.sum()),
            "mean_calibration_share": float((added / sizes).mean()),
            "largest_calibration_share": float((added / sizes).max()),
        }


def _cost(container: Container) -> tuple[int, int]:
    """Bytes that the calibration adds to a file, and those of the file without."""
    without = len(replace(container, calibration=None).pack())
    return len(container.pack()) - without, without
