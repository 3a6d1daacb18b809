"""Measures what a bundle does with images: rate, distortion, accuracy and time, from real files."""

from .plot import Plot, draw
from .quality.accuracy import Accuracy, accuracy
from .quality.curves import Curve, read_curves
from .quality.rate_distortion import RateDistortion, rate_distortion
from .speed.latency import latency
from .speed.results import Latency

__all__ = [
    "Accuracy",
    "Curve",
    "Latency",
    "Plot",
    "RateDistortion",
    "accuracy",
    "draw",
    "latency",
    "rate_distortion",
    "read_curves",
]
