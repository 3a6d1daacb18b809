"""Coding tables of the entropy models, made once, in float64: the same on every machine that makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc, expit, ndtri

from polc_runtime.bitstream.tables import CdfTable, EntropyTables

PRECISION = 16
TAIL_MASS = 1e-9
SCALES_MIN, SCALES_MAX, SCALES_COUNT = 0.11, 256.0, 64

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PriorArrays:
    """Weights of a factorised prior over C channels, outermost layer last.

    Attributes:
        matrices: [C, out, in] each.
        biases: [C, out, 1] each.
        factors: [C, out, 1] each, one fewer.
        quantiles: [C, 3]: lower tail, median, upper tail.
    """

    matrices: list[Array]
    biases: list[Array]
    factors: list[Array]
    quantiles: Array


def scale_table() -> NDArray[np.float32]:
    """The 64 log-spaced scales of the Gaussian conditional, 0.11..256."""
    logs = np.linspace(np.log(SCALES_MIN), np.log(SCALES_MAX), SCALES_COUNT)
    return np.exp(logs).astype(np.float32)


def quantize_pmf(pmf: Array) -> NDArray[np.int64]:
    """A 16-bit cumulative table of a probability mass function.

    compressai's rule: round p * 2^16, scale to the exact total, then give every symbol of frequency zero
    one unit, taken from the least frequent symbol that can spare it (the first of them).

    Args:
        pmf: probabilities [n], escape last.

    Returns:
        int64 [n+1], from 0 to 65536, strictly increasing.
    """
    counts = np.floor(pmf * (1 << PRECISION) + 0.5).astype(np.int64)
    cumulative = np.concatenate([[0], np.cumsum((counts << PRECISION) // counts.sum())])
    cumulative[-1] = 1 << PRECISION
    for i in range(len(pmf)):
        if cumulative[i] != cumulative[i + 1]:
            continue
        frequencies = np.diff(cumulative)
        donor = int(np.argmin(np.where(frequencies > 1, frequencies, np.iinfo(np.int64).max)))
        if donor < i:
            cumulative[donor + 1 : i + 1] -= 1
        else:
            cumulative[i + 1 : donor + 1] += 1
    return cumulative


def _table(pmfs: list[Array], offsets: NDArray[np.int64]) -> CdfTable:
    rows = [quantize_pmf(pmf) for pmf in pmfs]
    cdf = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, values in zip(cdf, rows, strict=True):
        row[: len(values)] = values
    return CdfTable(cdf, np.array([len(r) for r in rows], np.int32), offsets.astype(np.int32))


def gaussian_table(scales: NDArray[np.float32]) -> CdfTable:
    """A row a scale: the probabilities of a zero-mean Gaussian's integers, then the tails' as escape."""
    centers = np.ceil(scales.astype(np.float64) * -ndtri(TAIL_MASS / 2)).astype(np.int64)
    pmfs = []
    for scale, center in zip(scales.astype(np.float64), centers, strict=True):
        distance = np.abs(np.arange(2 * center + 1) - center)
        upper, lower = (0.5 * erfc(-(half - distance) / scale / np.sqrt(2)) for half in (0.5, -0.5))
        pmfs.append(np.append(upper - lower, 2 * lower[0]))
    return _table(pmfs, -centers)


def cumulative_logits(prior: PriorArrays, x: Array) -> Array:
    """Logits of the factorised prior's cumulative distribution at `x` [C, n] (Ballé et al., 2018)."""
    logits = x[:, None, :]
    for layer, (matrix, bias) in enumerate(zip(prior.matrices, prior.biases, strict=True)):
        logits = np.logaddexp(0, matrix) @ logits + bias
        if layer < len(prior.factors):
            logits = logits + np.tanh(prior.factors[layer]) * np.tanh(logits)
    return logits[:, 0]


def factorized_table(prior: PriorArrays) -> CdfTable:
    """A row a channel of the hyper-latent: probabilities around its median, then the tails' as escape.

    As in compressai, the upper tail is taken after the longest channel's last sample, for every channel.
    """
    low, median, high = prior.quantiles.T
    minima = np.maximum(np.ceil(median - low), 0).astype(np.int64)
    maxima = np.maximum(np.ceil(high - median), 0).astype(np.int64)
    lengths = minima + maxima + 1
    samples = np.arange(lengths.max())[None] + (median - minima)[:, None]
    lower, upper = (cumulative_logits(prior, samples + half) for half in (-0.5, 0.5))
    pmf = expit(upper) - expit(lower)
    tail = expit(lower[:, 0]) + expit(-upper[:, -1])
    return _table([np.append(p[:n], t) for p, n, t in zip(pmf, lengths, tail, strict=True)], -minima)


def make_tables(prior: PriorArrays) -> EntropyTables:
    """Every table that coding needs, from the factorised prior's weights."""
    scales = scale_table()
    medians = prior.quantiles[:, 1].astype(np.float32)
    return EntropyTables(factorized_table(prior), medians, gaussian_table(scales), scales)


def largest_difference(a: CdfTable, b: CdfTable) -> int | None:
    """Largest difference between two tables' entries; None where offsets or lengths differ."""
    if not (np.array_equal(a.lengths, b.lengths) and np.array_equal(a.offsets, b.offsets)):
        return None
    columns = int(a.lengths.max())
    return int(np.abs(a.cdf[:, :columns].astype(np.int64) - b.cdf[:, :columns]).max())
