"""Calibration: the encoder's rows of scales so close to a table's entry that a decoder may take the next row.

After Tian et al., "Towards Real-Time Neural Video Codec for Cross-Platform Application Using Calibration
Information" (arXiv:2309.11276), but with the side of the entry kept in a retrieval structure instead of a
list of positions: the decoder knows by its own scales where to ask, so that none need to be stored.

If no scale differs by more than the tolerance t (relative to the entry) between encoder and decoder, all rows
agree. For the encoder stores the side of every scale within 2t of an entry, and the decoder asks for those
within t: whatever it asks for was stored, and what it does not ask for is too far away to change sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError
from .retrieval import build, lookup

LEAST_EXPONENT, LARGEST_EXPONENT = 6, 21
"""Range of the exponents that fit the stream: tolerances from 2^-21 to 2^-6.

Larger ones would reach from one entry of the usual table to the next.
"""

Rows = NDArray[np.int32]
Exponents = tuple[int, ...]
"""Of each coding step: scales may differ by 2^-exponent of an entry of the table."""

DEFAULT_EXPONENT = 13
"""Of models whose differences were not measured: a tolerance of 1.2e-4."""


@dataclass(frozen=True)
class Tolerances:
    """The exponents to calibrate for, by quality.

    Attributes:
        rows: qualities, ascending, each with its exponents; at least one.
    """

    rows: tuple[tuple[float, Exponents], ...]

    @classmethod
    def default(cls, steps: int) -> Tolerances:
        """Those of a model of so many steps whose differences were not measured."""
        return cls(((1.0, (DEFAULT_EXPONENT,) * steps),))

    def to_list(self) -> list[dict[str, Any]]:
        """As it stands in a bundle's manifest."""
        return [{"quality": quality, "exponents": list(exponents)} for quality, exponents in self.rows]

    def at(self, quality: float) -> Exponents:
        """Those of a quality: of the two rows around it, for each step the larger tolerance."""
        below = [exponents for listed, exponents in self.rows if listed <= quality]
        above = [exponents for listed, exponents in self.rows if listed >= quality]
        return tuple(map(min, zip(*below[-1:], *above[:1], strict=True)))


@dataclass(frozen=True)
class Decisions:
    """The table rows of a coding step.

    Attributes:
        step: its index.
        first: symbols coded in the steps before.
        scales: float32 [n].
        rows: what they give: for each the number of the first entry >= scale, or the last, int32 [n].
    """

    step: int
    first: int
    scales: NDArray[np.float32]
    rows: Rows


@dataclass(frozen=True)
class Calibration:
    """Content of a file's calibration section.

    Attributes:
        exponents: of each coding step, `LEAST_EXPONENT` to `LARGEST_EXPONENT`.
        seed: of the retrieval structure, 0..255.
        solution: of the retrieval structure.
    """

    exponents: Exponents
    seed: int
    solution: bytes

    def pack(self) -> bytes:
        """The section's bytes."""
        padding = [LEAST_EXPONENT] * (len(self.exponents) % 2)
        codes = np.array([*self.exponents, *padding], np.uint8) - LEAST_EXPONENT
        return (codes[::2] | codes[1::2] << 4).tobytes() + bytes([self.seed]) + self.solution

    @classmethod
    def unpack(cls, section: bytes, steps: int) -> Calibration:
        """Undo `pack` for so many steps.

        Raises:
            BitstreamError: the section is too short, or its unused bits are set.
        """
        size = (steps + 1) // 2
        if len(section) <= size:
            raise BitstreamError(f"the calibration has {len(section)} bytes, expected at least {size + 1}")
        codes = [code for byte in section[:size] for code in (byte & 15, byte >> 4)]
        if any(codes[steps:]):
            raise BitstreamError("the calibration's unused bits are set")
        exponents = tuple(LEAST_EXPONENT + code for code in codes[:steps])
        return cls(exponents, section[size], section[size + 1 :])

    def correct(self, own: Decisions, edges: Edges) -> Rows:
        """The encoder's table rows of a coding step, from the decoder's own."""
        if not self.solution:
            return own.rows
        where, below, _ = edges.near(own, self.exponents[own.step])
        corrected = own.rows.copy()
        corrected[where] = below + lookup(own.first + where, self.seed, self.solution)
        return corrected


class CalibrationWriter:
    """Collects the scales of all coding steps that lie close to an entry.

    Args:
        exponents: of each coding step.
        edges: of the table.
    """

    def __init__(self, exponents: Exponents, edges: Edges) -> None:
        self.exponents = exponents
        self._edges = edges
        self._keys: list[NDArray[Any]] = []
        self._sides: list[NDArray[Any]] = []

    def add(self, own: Decisions) -> None:
        """Takes a coding step."""
        where, _, above = self._edges.near(own, self.exponents[own.step] - 1)
        self._keys.append(own.first + where)
        self._sides.append(above)

    def finish(self) -> Calibration:
        """The section that tells all of them."""
        seed, solution = build(np.concatenate(self._keys), np.concatenate(self._sides))
        return Calibration(self.exponents, seed, solution)


class Edges:
    """The decisions of a scale table: its entries but for the last, which bounds nothing.

    Args:
        scale_table: float32 [R], positive and ascending.
    """

    def __init__(self, scale_table: NDArray[np.float32]) -> None:
        self._table = scale_table
        self._cached: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def near(self, own: Decisions, exponent: int) -> tuple[NDArray[np.int64], Rows, NDArray[np.bool_]]:
        """Finds the scales within 2^-exponent of an entry, relative to the entry.

        Returns:
            Where they are [k], ascending; the number of that entry, which is the row below it [k]; and
            whether the scale lies above the entry [k].
        """
        low, high = self._zones(exponent)
        above = own.scales <= low[own.rows]
        where = np.flatnonzero(above | (own.scales >= high[own.rows]))
        sides = above[where]
        return where, own.rows[where] - sides.astype(np.int32), sides

    def _zones(self, exponent: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of each row: the largest scale that is near the entry below it, the least near the one above."""
        if exponent not in self._cached:
            entries = self._table[:-1].astype(np.float64)
            low = np.concatenate([[-np.inf], entries * (1 + 2.0**-exponent)])
            high = np.concatenate([entries * (1 - 2.0**-exponent), [np.inf]])
            self._cached[exponent] = low.astype(np.float32), high.astype(np.float32)
        return self._cached[exponent]
