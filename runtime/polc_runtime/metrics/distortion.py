"""How close a decoded image is to its original: PSNR, and the metrics of other packages by entry point."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np

from ..errors import BackendUnavailable, ImageError, PolcError, UsageError, first_line
from ..pictures.images import Pixels

Metric = Callable[[Pixels, Pixels], float]
"""Original and decoded image, both uint8 [H,W,3] -> a number.

It raises `BackendUnavailable` (or `ImportError`, `OSError`) where it cannot run at all, and any other
`PolcError` or a `ValueError` for a pair of images it has no number for.
"""

ENTRY_POINTS = "polc.metrics"
PSNR = "psnr-rgb"
RESULT_NAMES = {"psnr": PSNR, "ms-ssim": "ms-ssim-rgb", "lpips": "lpips-vgg"}
"""The names of metrics in results, where they are not their own: those of CompressAI."""


def psnr(original: Pixels, decoded: Pixels) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit RGB, uint8 [H,W,3]: 10 log10(255^2 / MSE).

    The mean squared error is that over all pixels and channels.

    Raises:
        ImageError: the images are equal, or not of one size.
    """
    if original.shape != decoded.shape:
        raise ImageError(f"the sizes differ: {list(original.shape)} and {list(decoded.shape)}")
    difference = original.astype(np.int32) - decoded
    squared_error = float(np.mean(np.square(difference), dtype=np.float64))
    if squared_error == 0:
        raise ImageError("the images are equal, so there is no finite PSNR")
    return 10 * math.log10(255**2 / squared_error)


BUILT_IN: dict[str, Metric] = {"psnr": psnr}
"""Metrics of the runtime itself."""

_CANNOT_RUN = (BackendUnavailable, ImportError, OSError)


@dataclass
class Metrics:
    """The metrics of one run.

    Attributes:
        functions: those that run, by name.
        unavailable: those that do not, and why.
    """

    functions: dict[str, Metric]
    unavailable: dict[str, str] = field(default_factory=dict)

    def measure(self, original: Pixels, decoded: Pixels) -> tuple[dict[str, float | None], dict[str, str]]:
        """Every metric's number by its name in results, None where it has none, and the reasons for those.

        A metric that turns out not to run is moved to `unavailable`.
        """
        values: dict[str, float | None] = {}
        reasons: dict[str, str] = {}
        for name, function in list(self.functions.items()):
            key = RESULT_NAMES.get(name, name)
            try:
                values[key] = _finite(function(original, decoded))
            except _CANNOT_RUN as error:
                del self.functions[name]
                self.unavailable[name] = first_line(error)
            except (PolcError, ValueError) as error:
                values[key], reasons[key] = None, first_line(error)
        return values, reasons


def choose_metrics(wanted: Sequence[str] | None = None) -> Metrics:
    """The metrics to measure.

    Args:
        wanted: names; None for all that run here.

    Raises:
        UsageError: there is no such metric.
        BackendUnavailable: one that is asked for by name cannot run here.
    """
    points = {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
    names = list(dict.fromkeys([*BUILT_IN, *points]))
    metrics = Metrics({})
    for name in dict.fromkeys(names if wanted is None else wanted):
        if name not in names:
            raise UsageError(f"no metric is named {name!r}; there are {', '.join(names)}")
        try:
            metrics.functions[name] = BUILT_IN[name] if name in BUILT_IN else points[name].load()
        except _CANNOT_RUN as error:
            reason = f"needs {error.name or error}" if isinstance(error, ImportError) else first_line(error)
            if wanted is not None:
                raise BackendUnavailable(f"the metric {name} cannot be measured: {reason}") from None
            metrics.unavailable[name] = reason
    return metrics


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the value is {value}")
    return float(value)
