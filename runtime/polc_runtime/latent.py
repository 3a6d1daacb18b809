"""The latent's way into bits and back: hyper-latent, nine coding steps, symbols, checksums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .backends import Backend, FloatArray
from .coding import rans
from .coding.container import Header, symbol_checksum
from .coding.schedule import Step, gather, scatter, schedule
from .coding.tables import EntropyTables
from .errors import BitstreamError, PolcError
from .trace import span

Symbols = NDArray[np.int32]
SymbolSource = Callable[[Step, Symbols, FloatArray], Symbols]
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
    """

    z: bytes
    y: list[bytes]
    checksums: tuple[int, ...]
    y_hat: FloatArray


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
    """

    def __init__(self, backend: Backend, tables: EntropyTables, channels: int) -> None:
        self.backend = backend
        self.tables = tables
        self.channels = channels
        self.steps = schedule(channels)

    def stream_count(self, h: int, w: int) -> int:
        """Streams of a latent on a grid of `h` x `w`."""
        return rans.stream_count(self.channels * h * w)

    def encode(self, y: FloatArray, z: FloatArray, quality: float) -> EncodedLatent:
        """Codes a latent.

        Args:
            y: latent [M,h,w].
            z: hyper-latent [N',h/4,w/4].
            quality: as the analysis had it.

        Raises:
            PolcError: a latent is not finite or too large to code.
        """
        with span(SYMBOLS):
            return self._encode(y, z, quality)

    def _encode(self, y: FloatArray, z: FloatArray, quality: float) -> EncodedLatent:
        z_symbols = quantize(z - self.tables.medians[:, None, None], "hyper-latent")
        coded: list[rans.Coded] = []

        def symbols_of(step: Step, rows: Symbols, means: FloatArray) -> Symbols:
            symbols = quantize(gather(y, step).ravel() - means, "latent")
            coded.append((symbols, rows))
            return symbols

        y_hat, checksums = self._run_steps(z_symbols, y.shape[1:], quality, symbols_of)
        rows = self.tables.hyper_indexes(*z.shape[1:])
        with span(ENTROPY):
            z_stream = rans.encode(z_symbols.ravel(), rows, self.tables.hyper)
            y_streams = rans.encode_streams(coded, self.tables.latent, self.stream_count(*y.shape[1:]))
        return EncodedLatent(z_stream, y_streams, (symbol_checksum(z_symbols), *checksums), y_hat)

    def decode(
        self, z: bytes, y: list[bytes], checksums: tuple[int, ...], grid: tuple[int, int], quality: float
    ) -> FloatArray:
        """Decodes a latent, float32 [M,h,w].

        Args:
            z: stream of the hyper-latent.
            y: streams of the latent.
            checksums: of the symbols of z and of each step.
            grid: h and w of the latent.
            quality: as coded.

        Raises:
            BitstreamError: a stream is damaged, or decodes to other symbols than were encoded; the message
                names the step.
        """
        with span(SYMBOLS):
            return self._decode(z, y, checksums, grid, quality)

    def _decode(
        self, z: bytes, y: list[bytes], checksums: tuple[int, ...], grid: tuple[int, int], quality: float
    ) -> FloatArray:
        h, w = grid[0] // 4, grid[1] // 4
        rows = self.tables.hyper_indexes(h, w)
        with span(ENTROPY):
            hyper = rans.Decoder(z, self.tables.hyper)
            z_symbols = hyper.decode(rows).reshape(-1, h, w)
            hyper.finish()
        check_symbols(z_symbols, checksums[0], "the hyper-latent")
        with span(ENTROPY):
            decoder = rans.StreamsDecoder(y, self.tables.latent)

        def symbols_of(step: Step, rows: Symbols, means: FloatArray) -> Symbols:
            with span(ENTROPY):
                symbols = decoder.decode(rows)
            check_symbols(symbols, checksums[1 + step.index], f"coding step {step.index}")
            return symbols

        y_hat, _ = self._run_steps(z_symbols, grid, quality, symbols_of)
        with span(ENTROPY):
            decoder.finish()
        return y_hat

    def _run_steps(
        self, z_symbols: Symbols, grid: tuple[int, ...], quality: float, symbols_of: SymbolSource
    ) -> tuple[FloatArray, list[int]]:
        """Decoded latent and the steps' checksums: one loop for the encoder and the decoder."""
        z_hat = z_symbols.astype(np.float32) + self.tables.medians[:, None, None]
        level = np.array([quality], np.float32)
        feeds = self.backend.run("hyper_synthesis", {"z_hat": z_hat[None], "quality": level})
        y_hat = np.zeros((self.channels, *grid), np.float32)
        checksums = []
        for step in self.steps:
            outputs = self.backend.run(f"context_{step.index}", {**feeds, "y_hat": y_hat[None]})
            means = outputs.pop("means")[0]
            rows = self.tables.indexes(outputs.pop("scales").ravel())
            feeds |= outputs  # the group's channel context, where the step gives it
            symbols = symbols_of(step, rows, means.ravel())
            scatter(y_hat, step, symbols.reshape(means.shape).astype(np.float32) + means)
            checksums.append(symbol_checksum(symbols))
        return y_hat, checksums


def quantize(values: FloatArray, what: str) -> Symbols:
    """Nearest integers, half to even.

    Raises:
        PolcError: a value is not finite or beyond 31 bits.
    """
    rounded = np.rint(values)
    if not np.all(np.abs(rounded) < MAX_SYMBOL):
        raise PolcError(f"the {what} is not finite or too large to code: the model's weights are not usable")
    return rounded.astype(np.int32)


def check_symbols(symbols: Symbols, expected: int, where: str) -> None:
    """Raises BitstreamError unless the decoded symbols have the encoder's checksum."""
    if symbol_checksum(symbols) != expected:
        raise BitstreamError(
            f"{where} decodes to other symbols than were encoded: the file is damaged, or was encoded on a "
            "machine or backend that rounds differently"
        )
