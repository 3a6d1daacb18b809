"""The latent's way into bits and back: hyper-latent, coding steps, symbols, checksums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, FloatArray
from ..bitstream import rans
from ..bitstream.calibration import (
    Calibration,
    CalibrationWriter,
    Decisions,
    Edges,
    Exponents,
    Tolerances,
)
from ..bitstream.container import Container, Header, join_streams, symbol_checksum
from ..bitstream.plan import CodingPlan
from ..bitstream.schedule import Step, gather, scatter
from ..bitstream.tables import CdfTable, EntropyTables
from ..errors import BitstreamError, BundleError, DriftError, NotFiniteError, PolcError
from ..trace import span
from .checked import require, run

Symbols = NDArray[np.int32]
SymbolSource = Callable[[Step, Decisions, FloatArray], Symbols]
"""Gives a step's symbols [n] from its table rows [n] and means [n], in push order."""

MAX_SYMBOL = 2**31 - 1
SYMBOLS, ENTROPY = "symbols", "entropy"
"""Spans of `polc_runtime.trace`: the work on symbols and tables between the graphs, and the coder in it."""


@dataclass(frozen=True)
class EncodedLatent:
    """A latent as bits.

    Attributes:
        z: stream of the hyper-latent; None for a codec without one.
        y: streams of the latent.
        checksums: of the symbols of z and of each step.
        y_hat: what the decoder will decode, float32 [M,h,w].
        calibration: what decoders on other machines need; None where it was not asked for.
        version: of the bitstream that holds it.
    """

    z: bytes | None
    y: list[bytes]
    checksums: tuple[int, ...]
    y_hat: FloatArray
    calibration: Calibration | None
    version: int

    def container(self, header: Header) -> Container:
        """The file that holds it."""
        y = join_streams(self.y)
        return Container(header, self.z, y, self.checksums, self.calibration, self.version)


@dataclass(frozen=True)
class Decoded:
    """What the bits of a `.polc` file hold: the latent that pictures and predictions are made from.

    Attributes:
        header: size and quality of the image.
        y_hat: float32 [M,h,w], on the padded image's grid.
    """

    header: Header
    y_hat: FloatArray


class LatentCoder:
    """Codes latents with one model's entropy graphs and tables; holds no state between calls.

    Args:
        backend: runs the graphs of the plan's hyper-latent and steps.
        tables: the model's coding tables.
        plan: the model's.
        tolerances: that files are calibrated for; None for those of a model that nobody measured.
    """

    def __init__(
        self,
        backend: Backend,
        tables: EntropyTables,
        plan: CodingPlan,
        tolerances: Tolerances | None = None,
    ) -> None:
        self.backend = backend
        self.tables = tables
        self.plan = plan
        self.tolerances = tolerances or Tolerances.default(len(plan.steps))
        self.version = 1 if plan.fits_version_1 else 2
        self._edges = Edges(tables.scale_table)

    def stream_count(self, h: int, w: int) -> int:
        """Streams of a latent on a grid of `h` x `w`."""
        return rans.stream_count(self.plan.latent.channels * h * w)

    def encode(
        self, y: FloatArray, z: FloatArray | None, quality: float, portable: bool = True
    ) -> EncodedLatent:
        """Codes a latent.

        Args:
            y: latent [M,h,w].
            z: hyper-latent [N',h',w'] on its own grid; None for a codec without one.
            quality: as the analysis had it.
            portable: whether to calibrate, for decoders on other machines.

        Raises:
            PolcError: a latent is not finite or too large to code.
            BundleError: the tolerances do not fit the scale table.
        """
        with span(SYMBOLS):
            return self._encode(y, z, quality, portable)

    def quantised(self, y: FloatArray, z: FloatArray | None, quality: float) -> FloatArray:
        """What decoding a latent's bits will give, float32 [M,h,w]; no bits are made.

        Arguments and errors as in `encode`.
        """

        def symbols_of(step: Step, own: Decisions, means: FloatArray) -> Symbols:
            return quantize(gather(y, step).ravel() - means, "latent")

        grid = (y.shape[1], y.shape[2])
        return self._run_steps(self._hyper_symbols(z), grid, quality, symbols_of)[0]

    def _hyper_symbols(self, z: FloatArray | None) -> Symbols | None:
        """The symbols of a hyper-latent [N',h',w']."""
        return None if z is None else quantize(z - self.tables.medians[:, None, None], "hyper-latent")

    def _encode(self, y: FloatArray, z: FloatArray | None, quality: float, portable: bool) -> EncodedLatent:
        z_symbols, z_stream = self._hyper_symbols(z), None
        coded: list[rans.Coded] = []
        writer = self._calibration(quality) if portable and z is not None else None

        def symbols_of(step: Step, own: Decisions, means: FloatArray) -> Symbols:
            symbols = quantize(gather(y, step).ravel() - means, "latent")
            coded.append((symbols, own.rows))
            if writer:
                writer.add(own)
            return symbols

        grid = (y.shape[1], y.shape[2])
        y_hat, checksums = self._run_steps(z_symbols, grid, quality, symbols_of)
        with span(ENTROPY):
            if z_symbols is not None:
                rows = self.tables.hyper_indexes(*z_symbols.shape[1:])
                z_stream = rans.encode(z_symbols.ravel(), rows, self.tables.hyper)
            y_streams = rans.encode_streams(coded, self._latent_table, self.stream_count(*grid))
        sums = (0 if z_symbols is None else symbol_checksum(z_symbols), *checksums)
        calibration = writer.finish() if writer else None
        return EncodedLatent(z_stream, y_streams, sums, y_hat, calibration, self.version)

    def decode(self, container: Container) -> FloatArray:
        """Decodes a file's latent, float32 [M,h,w].

        Raises:
            BitstreamError: a stream is damaged, or does not fit the plan.
            DriftError: a step decodes to other symbols than were encoded; the message names it.
        """
        try:
            with span(SYMBOLS):
                return self._decode(container)
        except NotFiniteError as error:
            raise BitstreamError(str(error)) from None

    def _decode(self, container: Container) -> FloatArray:
        header, checksums, calibration = container.header, container.checksums, container.calibration
        self._check_fits(container)
        grid = self.plan.latent_size(header.height, header.width)
        streams = container.y_streams(self.plan.latent.channels * grid[0] * grid[1])
        z_symbols = self._decode_hyper(container)
        with span(ENTROPY):
            decoder = rans.StreamsDecoder(streams, self._latent_table)

        def symbols_of(step: Step, own: Decisions, means: FloatArray) -> Symbols:
            rows = calibration.correct(own, self._edges) if calibration else own.rows
            try:
                with span(ENTROPY):
                    symbols = decoder.decode(rows)
            except BitstreamError as error:
                raise drift(step.index, f"does not decode ({error})", calibration) from None
            if symbol_checksum(symbols) != checksums[1 + step.index]:
                raise drift(step.index, "decodes to other symbols than were encoded", calibration)
            return symbols

        y_hat, _ = self._run_steps(z_symbols, grid, header.quality, symbols_of)
        with span(ENTROPY):
            decoder.finish()
        return y_hat

    def _check_fits(self, container: Container) -> None:
        """Refuses a file of this model's fingerprint that its plan cannot have written."""
        found = (container.version, len(container.checksums) - 1, container.z is not None)
        expected = (self.version, len(self.plan.steps), self.plan.hyper is not None)
        if found != expected:
            raise BitstreamError(
                "the file does not fit its model's coding plan: bitstream version, steps and hyper-latent "
                f"are {found}, expected {expected}"
            )
        quality, offered = container.header.quality, self.plan.quality
        if self.version > 1 and not offered.min <= quality <= offered.max:
            raise BitstreamError(
                f"the file's quality is {quality:g}, its model has {offered.min:g} to {offered.max:g}"
            )

    def _decode_hyper(self, container: Container) -> Symbols | None:
        """The hyper-latent's symbols [N',h',w']; None where there is none."""
        if container.z is None:
            return None
        h, w = self.plan.hyper_size(container.header.height, container.header.width)
        rows = self.tables.hyper_indexes(h, w)
        with span(ENTROPY):
            decoder = rans.Decoder(container.z, self.tables.hyper)
            symbols = decoder.decode(rows).reshape(-1, h, w)
            decoder.finish()
        if symbol_checksum(symbols) != container.checksums[0]:
            raise BitstreamError(
                "the hyper-latent decodes to other symbols than were encoded: the file was tampered with"
            )
        return symbols

    @property
    def _latent_table(self) -> CdfTable:
        """The table of the latent's symbols: a codec without hyper-latent has the factorised prior alone."""
        return self.tables.hyper if self.plan.hyper is None else self.tables.latent

    def _calibration(self, quality: float) -> CalibrationWriter:
        exponents = self.tolerances.at(quality)
        check_tolerances(self.tables.scale_table, exponents)
        return CalibrationWriter(exponents, self._edges)

    def _run_steps(
        self,
        z_symbols: Symbols | None,
        grid: tuple[int, int],
        quality: float,
        symbols_of: SymbolSource,
    ) -> tuple[FloatArray, list[int]]:
        """Decoded latent and the steps' checksums: one loop for the encoder and the decoder."""
        hyper = self._run_hyper(z_symbols, quality)
        hyper_graph = self.plan.hyper.graph if self.plan.hyper else None
        feeds = _passed_on(hyper)
        y_hat = np.zeros((self.plan.latent.channels, *grid), np.float32)
        checksums = []
        first = 0
        for step in self.plan.steps:
            shape = step.shape(*grid)
            if step.graph is None:
                own, means = self._factorised(step, first, shape)
            else:
                outputs = hyper
                if step.graph != hyper_graph:
                    outputs = run(self.backend, step.graph, {**feeds, "y_hat": y_hat[None]}, {})
                    feeds |= _passed_on(outputs)  # such as the group's channel context
                scales, means = self._parameters(step, outputs, shape)
                own = Decisions(step.index, first, scales, self.tables.indexes(scales))
            first += own.rows.size
            symbols = symbols_of(step, own, means.ravel())
            scatter(y_hat, step, symbols.reshape(shape).astype(np.float32) + means)
            checksums.append(symbol_checksum(symbols))
        return y_hat, checksums

    def _run_hyper(self, z_symbols: Symbols | None, quality: float) -> dict[str, FloatArray]:
        """What the hyper-latent's graph gives; nothing without a hyper-latent."""
        if z_symbols is None or self.plan.hyper is None:
            return {}
        z_hat = z_symbols.astype(np.float32) + self.tables.medians[:, None, None]
        level = np.array([quality], np.float32)
        return run(self.backend, self.plan.hyper.graph, {"z_hat": z_hat[None], "quality": level}, {})

    def _parameters(
        self, step: Step, outputs: dict[str, FloatArray], shape: tuple[int, ...]
    ) -> tuple[FloatArray, FloatArray]:
        """A step's scales [n] and means, zeros where its graph gives none."""
        require(str(step.graph), outputs, {"scales": (1, *shape)})
        scales = outputs["scales"].ravel()
        if "means" not in outputs:
            return scales, np.zeros(shape, np.float32)
        require(str(step.graph), outputs, {"means": (1, *shape)})
        means = outputs["means"][0]
        if not np.isfinite(means).all():
            raise NotFiniteError("the model's means are not finite: the file or the bundle is wrong")
        return scales, means

    def _factorised(
        self, step: Step, first: int, shape: tuple[int, int, int]
    ) -> tuple[Decisions, FloatArray]:
        """Table rows and means of a step with the factorised prior: a row and a median for each channel."""
        channels = np.arange(step.channels.start, step.channels.stop, dtype=np.int32)
        channels = np.tile(channels, len(step.positions) or 1)
        rows = np.repeat(channels, shape[1] * shape[2])
        means = np.broadcast_to(self.tables.medians[channels][:, None, None], shape)
        return Decisions(step.index, first, np.zeros(0, np.float32), rows), means


def _passed_on(outputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """What later steps may take of a graph's outputs."""
    return {name: value for name, value in outputs.items() if name not in ("scales", "means")}


def check_tolerances(scale_table: FloatArray, exponents: Exponents) -> None:
    """Refuses tolerances by which a scale can be close to two entries of the table.

    The encoder might answer for one of them where the decoder asks for the other, and the file would be lost.

    Raises:
        BundleError: there are such.
    """
    reach = 2.0 ** (1 - min(exponents))
    entries = scale_table[:-1].astype(np.float64)
    if (entries[1:] * (1 - reach) <= entries[:-1] * (1 + reach)).any():
        raise BundleError(
            f"the bundle's tolerance of 2^-{min(exponents)} does not fit its scale table: two entries lie "
            "within it; export the bundle with a smaller one, or encode with portable=False"
        )


def quantize(values: FloatArray, what: str) -> Symbols:
    """Nearest integers, half to even.

    Raises:
        PolcError: a value is not finite or beyond 31 bits.
    """
    rounded = np.rint(values)
    if not np.all(np.abs(rounded) < MAX_SYMBOL):
        raise PolcError(f"the {what} is not finite or too large to code: the model's weights are not usable")
    return rounded.astype(np.int32)


def drift(step: int, what: str, calibration: Calibration | None) -> DriftError:
    """The error of a coding step whose symbols are not the encoder's, with what it most likely comes from."""
    if calibration is None:
        cause = "it has no calibration, and was encoded where scales round differently"
    else:
        tolerance = f"2^-{calibration.exponents[step]}"
        cause = (
            f"it was encoded where scales differ by more than its tolerance of {tolerance} "
            "('polc-bench agreement' measures that)"
        )
    return DriftError(f"coding step {step} {what}: the file was tampered with, or {cause}")
