"""Codes images with each of several backends and decodes them with all: differences, losses, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

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
"""Latents with the same symbols differ less: only by their means. Other symbols differ by about 1 or more."""

_REFERENCE = 0


class Recorder(BackendWrapper):
    """Keeps the scales and means that the coding steps give.

    Attributes:
        scales: of the coding steps since `forget`, each float32 [n].
        means: likewise.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.scales: list[FloatArray] = []
        self.means: list[FloatArray] = []

    def run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Runs a graph, and keeps what a coding step gives."""
        outputs = self.backend.run(graph, inputs)
        if "scales" in outputs:
            scales = outputs["scales"]
            self.scales.append(scales.ravel())
            self.means.append(outputs.get("means", np.zeros_like(scales)).ravel())
        return outputs

    def forget(self) -> None:
        """Drops what was kept."""
        self.scales, self.means = [], []


@dataclass(frozen=True)
class QualityAgreement:
    """How far several ways to run a model agree at one quality.

    Attributes:
        quality: of the files.
        exponents: of the tolerances that files were calibrated for, by coding step.
        scale_difference: largest difference between any two ways, relative to the scale, by coding step.
        scale_difference_from_first: difference from the first way, by way and coding step.
        mean_difference: largest difference of the means, by coding step.
        calibration_bytes: that the calibration adds to a file, in the mean.
        calibration_share: of all files together.
        mean_calibration_share: mean over the files.
        largest_calibration_share: of the file with the largest.
    """

    quality: float
    exponents: list[int]
    scale_difference: list[float]
    scale_difference_from_first: list[list[float]]
    mean_difference: list[float]
    calibration_bytes: float
    calibration_share: float
    mean_calibration_share: float
    largest_calibration_share: float


class CrossCoder:
    """Counts, over images and qualities, how far codecs of one bundle agree.

    Args:
        codecs: one for each way to run the model; the first analyses the images for all.
        tolerances: to calibrate for.
        margin: how many times the largest difference a proposed tolerance is, at least.

    Attributes:
        files: coded by each codec so far.
        lost: with calibration or without -> files lost, by encoder and decoder.
    """

    def __init__(self, codecs: Sequence[Codec], tolerances: Tolerances, margin: float) -> None:
        self.codec = codecs[_REFERENCE]
        self.tolerances, self.margin = tolerances, margin
        self.files = 0
        tables, plan = self.codec.latent_coder.tables, self.codec.plan
        self.smallest_scale = float(tables.scale_table[0])
        self.recorders = [Recorder(codec.backend) for codec in codecs]
        self.coders = [LatentCoder(recorder, tables, plan, tolerances) for recorder in self.recorders]
        self.quiet = [i for i, codec in enumerate(codecs) if not isinstance(codec.backend, NoisyBackend)]
        count = len(codecs)
        self.lost = {calibrated: np.zeros((count, count), np.int64) for calibrated in (False, True)}
        self._found: dict[float, _Differences] = {}

    def add(self, pixels: Pixels, quality: float) -> str:
        """Codes an image with every codec and decodes it with all.

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
        steps = len(self.codec.plan.steps)
        found = self._found.setdefault(header.quality, _Differences(len(self.coders), steps))
        before = {calibrated: int(lost.sum()) for calibrated, lost in self.lost.items()}
        known: dict[bytes, dict[bool, list[bool]]] = {}  # equal files decode equally, and are decoded once
        for index, each in enumerate(encoded):
            container = each.container(header)
            data = container.pack()
            if data not in known:
                known[data] = self._lost_by(container, each.y_hat, found if index == _REFERENCE else None)
            for calibrated, lost in self.lost.items():
                lost[index] += known[data][calibrated]
        found.costs.append(_cost(encoded[_REFERENCE].container(header)))
        self.files += 1
        now = {calibrated: int(lost.sum()) - before[calibrated] for calibrated, lost in self.lost.items()}
        pairs = len(self.coders) ** 2
        return f"of {pairs} decodings {now[False]} lost without calibration, {now[True]} with it"

    def proposed(self) -> Tolerances:
        """For each quality, the smallest tolerances that keep the margin."""
        rows = ((quality, found.proposed(self.margin)) for quality, found in sorted(self._found.items()))
        return Tolerances(tuple(rows))

    def qualities(self) -> tuple[QualityAgreement, ...]:
        """What was found at each quality."""
        return tuple(
            found.summary(quality, list(self.tolerances.at(quality)))
            for quality, found in sorted(self._found.items())
        )

    def _lost_by(
        self, container: Container, y_hat: FloatArray, differences: _Differences | None
    ) -> dict[bool, list[bool]]:
        """For each decoder, whether it loses a file with its calibration, and without.

        Where the calibration changes no index, both are one computation, which is done once.
        """
        assert container.calibration is not None
        lost, changed = [], []
        for coder, recorder in zip(self.coders, self.recorders, strict=True):
            recorder.forget()
            calibration = _RecordingCalibration(**vars(container.calibration))
            lost.append(not _decodes(coder, replace(container, calibration=calibration), y_hat))
            changed.append(bool(calibration.changed))
        if differences is not None:
            differences.add(self.recorders, self.quiet, self.smallest_scale)
        bare = replace(container, calibration=None)
        without = [
            not _decodes(coder, bare, y_hat) if differs else found
            for coder, differs, found in zip(self.coders, changed, lost, strict=True)
        ]
        return {True: lost, False: without}


@dataclass(frozen=True)
class _RecordingCalibration(Calibration):
    """A calibration that records the steps in which it changed an index."""

    changed: list[int] = field(default_factory=list)

    def correct(self, own: Decisions, edges: Edges) -> Rows:
        """Corrects a step's indexes, see `Calibration.correct`."""
        rows = super().correct(own, edges)
        if (rows != own.rows).any():
            self.changed.append(own.step)
        return rows


class _Differences:
    """What was found at one quality.

    Attributes:
        scales: largest difference between any two ways to run the model, relative to the scale, by step.
        means: largest difference of the means, by step.
        from_first: difference of the scales from the first way's, by way and step.
        costs: of each file, the bytes that the calibration adds, and those of the file without.
    """

    def __init__(self, ways: int, steps: int) -> None:
        self.scales: NDArray[np.float64] = np.zeros(steps)
        self.means: NDArray[np.float64] = np.zeros(steps)
        self.from_first: NDArray[np.float64] = np.zeros((ways, steps))
        self.costs: list[tuple[int, int]] = []

    def add(self, recorders: Sequence[Recorder], quiet: Sequence[int], smallest_scale: float) -> None:
        """Takes the differences between all decoders of one file, but for those that lost it or add noise."""
        steps = len(self.scales)
        whole = [i for i in quiet if len(recorders[i].scales) == steps]
        if len(recorders[_REFERENCE].scales) < steps:
            return  # a codec whose steps have no graphs computes nothing that could differ
        for step in range(steps):
            first = recorders[_REFERENCE].scales[step]
            matters = first > 0.9 * smallest_scale  # below the table nothing is decided
            unit = np.maximum(first, smallest_scale)
            scales = np.stack([recorders[i].scales[step] for i in whole])
            means = np.stack([recorders[i].means[step] for i in whole])
            apart = (np.ptp(scales, axis=0) / unit).max(initial=0, where=matters)
            self.scales[step] = max(self.scales[step], apart)
            self.means[step] = max(self.means[step], np.ptp(means, axis=0).max(initial=0))
            for i, row in zip(whole, scales, strict=True):
                apart = (np.abs(row - first) / unit).max(initial=0, where=matters)
                self.from_first[i, step] = max(self.from_first[i, step], apart)

    def proposed(self, margin: float) -> Exponents:
        """Of each coding step, the largest exponent whose tolerance keeps the margin."""
        largest = np.maximum(self.scales * margin, 2.0**-LARGEST_EXPONENT)
        return tuple(max(math.floor(-math.log2(value)), LEAST_EXPONENT) for value in largest)

    def summary(self, quality: float, exponents: list[int]) -> QualityAgreement:
        """The sums over all files."""
        added, sizes = np.array(self.costs, np.float64).T
        return QualityAgreement(
            quality=quality,
            exponents=exponents,
            scale_difference=self.scales.tolist(),
            scale_difference_from_first=self.from_first.tolist(),
            mean_difference=self.means.tolist(),
            calibration_bytes=float(added.mean()),
            calibration_share=float(added.sum() / sizes.sum()),
            mean_calibration_share=float((added / sizes).mean()),
            largest_calibration_share=float((added / sizes).max()),
        )


def _decodes(coder: LatentCoder, container: Container, y_hat: FloatArray) -> bool:
    try:
        found = coder.decode(container)
    except BitstreamError:
        return False
    return bool(np.abs(found - y_hat).max() < SAME)


def _cost(container: Container) -> tuple[int, int]:
    """Bytes that the calibration adds to a file, and those of the file without."""
    without = len(replace(container, calibration=None).pack())
    return len(container.pack()) - without, without
