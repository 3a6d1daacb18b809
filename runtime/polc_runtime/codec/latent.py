"""The latent's way into bits and back: hyper-latent, nine coding steps, symbols, checksums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backends import Backend, FloatArray
from ..bitstream import rans
from ..bitstream.calibration import (
    DEFAULT_TOLERANCES,
    Calibration,
    CalibrationWriter,
    Decisions,
    Edges,
    Exponents,
    Tolerances,
)
from ..bitstream.container import Container, Header, join_streams, symbol_checksum
from ..bitstream.schedule import Step, gather, scatter, schedule
from ..bitstream.tables import EntropyTables
from ..errors import BitstreamError, BundleError, PolcError
from ..trace import span
from .checked import run

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
        z: stream of the hyper-latent.
        y: streams of the latent.
        checksums: of the symbols of z and of each step.
        y_hat: what the decoder will decode, float32 [M,h,w].
        calibration: what decoders on other machines need; None where it was not asked for.
    """

    z: bytes
    y: list[bytes]
    checksums: tuple[int, ...]
    y_hat: FloatArray
    calibration: Calibration | None

    def container(self, header: Header) -> Container:
        """The file that holds it."""
        return Container(header, self.z, join_streams(self.y), self.checksums, self.calibration)


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
        backend: runs hyper_synthesis and context_0..8.
        tables: the model's coding tables.
        channels: M, channels of the latent.
        tolerances: that files are calibrated for.

    Raises:
        BundleError: there are too few channels.
    """

    def __init__(
        self,
        backend: Backend,
        tables: EntropyTables,
        channels: int,
        tolerances: Tolerances = DEFAULT_TOLERANCES,
    ) -> None:
        self.backend = backend
        self.tables = tables
        self.channels = channels
        self.tolerances = tolerances
        try:
            self.steps = schedule(channels)
        except ValueError as error:
            raise BundleError(f"the bundle's latent has no coding order: {error}") from None
        self._edges = Edges(tables.scale_table)

    def stream_count(self, h: int, w: int) -> int:
        """Streams of a latent on a grid of `h` x `w`."""
        return rans.stream_count(self.channels * h * w)

    def encode(self, y: FloatArray, z: FloatArray, quality: float, portable: bool = True) -> EncodedLatent:
        """Codes a latent.

        Args:
            y: latent [M,h,w].
            z: hyper-latent [N',h/4,w/4].
            quality: as the analysis had it.
            portable: whether to calibrate, for decoders on other machines.

        Raises:
            PolcError: a latent is not finite or too large to code.
            BundleError: the tolerances do not fit the scale table.
        """
        with span(SYMBOLS):
            return self._encode(y, z, quality, portable)

    def _encode(self, y: FloatArray, z: FloatArray, quality: float, portable: bool) -> EncodedLatent:
        z_symbols = quantize(z - self.tables.medians[:, None, None], "hyper-latent")
        coded: list[rans.Coded] = []
        writer = self._calibration(quality) if portable else None

        def symbols_of(step: Step, own: Decisions, means: FloatArray) -> Symbols:
            symbols = quantize(gather(y, step).ravel() - means, "latent")
            coded.append((symbols, own.rows))
            if writer:
                writer.add(own)
            return symbols

        grid = (y.shape[1], y.shape[2])
        y_hat, checksums = self._run_steps(z_symbols, grid, quality, symbols_of)
        rows = self.tables.hyper_indexes(*z.shape[1:])
        with span(ENTROPY):
            z_stream = rans.encode(z_symbols.ravel(), rows, self.tables.hyper)
            y_streams = rans.encode_streams(coded, self.tables.latent, self.stream_count(*grid))
        sums = (symbol_checksum(z_symbols), *checksums)
        return EncodedLatent(z_stream, y_streams, sums, y_hat, writer.finish() if writer else None)

    def decode(self, container: Container) -> FloatArray:
        """Decodes a file's latent, float32 [M,h,w].

        Raises:
            BitstreamError: a stream is damaged, or decodes to other symbols than were encoded; the message
                names the step.
        """
        with span(SYMBOLS):
            return self._decode(container)

    def _decode(self, container: Container) -> FloatArray:
        header, checksums, calibration = container.header, container.checksums, container.calibration
        grid = header.latent_size
        h, w = header.hyper_size
        streams = container.y_streams(self.channels * grid[0] * grid[1])
        rows = self.tables.hyper_indexes(h, w)
        with span(ENTROPY):
            hyper = rans.Decoder(container.z, self.tables.hyper)
            z_symbols = hyper.decode(rows).reshape(-1, h, w)
            hyper.finish()
        if symbol_checksum(z_symbols) != checksums[0]:
            raise BitstreamError(
                "the hyper-latent decodes to other symbols than were encoded: the file was tampered with"
            )
        with span(ENTROPY):
            decoder = rans.StreamsDecoder(streams, self.tables.latent)

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

    def _calibration(self, quality: float) -> CalibrationWriter:
        exponents = self.tolerances.at(quality)
        check_tolerances(self.tables.scale_table, exponents)
        return CalibrationWriter(exponents, self._edges)

    def _run_steps(
        self, z_symbols: Symbols, grid: tuple[int, int], quality: float, symbols_of: SymbolSource
    ) -> tuple[FloatArray, list[int]]:
        """Decoded latent and the steps' checksums: one loop for the encoder and the decoder."""
        z_hat = z_symbols.astype(np.float32) + self.tables.medians[:, None, None]
        level = np.array([quality], np.float32)
        feeds = run(self.backend, "hyper_synthesis", {"z_hat": z_hat[None], "quality": level}, {})
        y_hat = np.zeros((self.channels, *grid), np.float32)
        checksums = []
        first = 0
        for step in self.steps:
            shapes = dict.fromkeys(("means", "scales"), (1, *step.shape(*grid)))
            outputs = run(self.backend, f"context_{step.index}", {**feeds, "y_hat": y_hat[None]}, shapes)
            means = outputs.pop("means")[0]
            if not np.isfinite(means).all():
                raise BitstreamError("the model's means are not finite: the file or the bundle is wrong")
            scales = outputs.pop("scales").ravel()
            feeds |= outputs  # the group's channel context, where the step gives it
            own = Decisions(step.index, first, scales, self.tables.indexes(scales))
            first += scales.size
            symbols = symbols_of(step, own, means.ravel())
            scatter(y_hat, step, symbols.reshape(means.shape).astype(np.float32) + means)
            checksums.append(symbol_checksum(symbols))
        return y_hat, checksums


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
            "within it; export the bundle with a smaller one, or encode with --portable-bits off"
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


def drift(step: int, what: str, calibration: Calibration | None) -> BitstreamError:
    """The error of a coding step whose symbols are not the encoder's, with what it most likely comes from."""
    if calibration is None:
        cause = "it has no calibration (--portable-bits off), and was encoded where scales round differently"
    else:
        tolerance = f"2^-{calibration.exponents[step]}"
        cause = (
            f"it was encoded where scales differ by more than its tolerance of {tolerance} "
            "('polc-bench agreement' measures that)"
        )
    return BitstreamError(f"coding step {step} {what}: the file was tampered with, or {cause}")
