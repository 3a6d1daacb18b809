"""Curves between their points: monotone cubic interpolation, as the BD-rate's pchip method has it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def pchip(x: Array, y: Array, at: float) -> float:
    """The piecewise cubic Hermite interpolant through points, with Fritsch and Butland's slopes.

    As scipy's PchipInterpolator: between two points it stays between their values. One point is a constant.

    Args:
        x: [n], increasing strictly.
        y: [n].
        at: within x[0] .. x[-1].

    Raises:
        ValueError: `at` lies outside.
    """
    if not x[0] <= at <= x[-1]:
        raise ValueError(f"{at} is not within {x[0]} .. {x[-1]}")
    if len(x) == 1:
        return float(y[0])
    width = np.diff(x)
    secant = np.diff(y) / width
    slope = _slopes(width, secant)
    i = min(int(np.searchsorted(x, at, side="right")) - 1, len(width) - 1)
    t = (at - x[i]) / width[i]
    rise = width[i] * (slope[i] * t * (1 - t) ** 2 - slope[i + 1] * t**2 * (1 - t))
    return float(y[i] * (1 + 2 * t) * (1 - t) ** 2 + y[i + 1] * t**2 * (3 - 2 * t) + rise)


def _slopes(width: Array, secant: Array) -> Array:
    """Slope at each point: a weighted harmonic mean of its two secants, zero where their signs differ."""
    if len(secant) == 1:
        return np.repeat(secant, 2)
    weight = np.stack([2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]])
    same = secant[:-1] * secant[1:] > 0
    inner = np.zeros(len(secant) - 1)
    sides = np.stack([secant[:-1], secant[1:]])[:, same]
    inner[same] = weight[:, same].sum(0) / (weight[:, same] / sides).sum(0)
    return np.array([_end(width, secant), *inner, _end(width[::-1], secant[::-1])])


def _end(width: Array, secant: Array) -> float:
    """Slope at the first point: of the parabola through three points, held to the curve's direction."""
    slope = ((2 * width[0] + width[1]) * secant[0] - width[0] * secant[1]) / (width[0] + width[1])
    if np.sign(slope) != np.sign(secant[0]):
        return 0.0
    if np.sign(secant[0]) != np.sign(secant[1]) and abs(slope) > 3 * abs(secant[0]):
        return float(3 * secant[0])
    return float(slope)
