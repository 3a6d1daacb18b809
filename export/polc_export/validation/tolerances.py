"""Measures how far backends' scales differ, for the tolerances that a bundle's files are calibrated for."""

from __future__ import annotations

import polc
from polc.backends.torch import TorchBackend
from polc_runtime import Bundle, Codec
from polc_runtime.agreement.cross_coding import CrossCoder
from polc_runtime.agreement.tunable import TunableOnnxRuntime
from polc_runtime.backends import BackendOptions
from polc_runtime.bitstream.calibration import Tolerances
from polc_runtime.pictures.images import Pixels

from ..checks import Checks, Report, crop
from .runs import cases

MARGIN = 4.0
"""How many times the largest difference seen on one photo a tolerance is, at least."""

LIMIT = 2.0**-9
"""Largest difference of scales, relative to them, with which a bundle is still of use."""

CASES = ((512, 512, 0.0), (512, 512, 0.5), (512, 512, 1.0))
"""Size of what is coded, and where its quality lies in the range."""


def measure_tolerances(
    checks: Checks, bundle: Bundle, model: polc.CodecModel, photo: Pixels, report: Report
) -> Tolerances:
    """Codes a photo with ONNX Runtime and PyTorch, and compares their scales in every coding step.

    Args:
        checks: gets the largest difference.
        bundle: the bundle.
        model: the model it was made from.
        photo: uint8 [H,W,3].
        report: called with a line.

    Returns:
        Tolerances at least `MARGIN` times the differences; the bundle's own for a codec without scales.
    """
    plan = bundle.manifest.plan
    if not plan.exact_graphs:
        return bundle.manifest.tolerances
    report("comparing backends' scales, for the calibration of files")
    backends = (
        "onnxruntime",
        TunableOnnxRuntime(bundle, BackendOptions(), "all", native=True),
        TorchBackend(model),
    )
    codecs = [Codec(bundle, backend) for backend in backends]
    try:
        coder = CrossCoder(codecs, bundle.manifest.tolerances, MARGIN)
        for height, width, quality in cases(plan, CASES):
            coder.add(crop(photo, height, width), quality)
    finally:
        for codec in codecs:
            codec.close()
    largest = max(max(found.scale_difference) for found in coder.qualities())
    checks.add("scales between backends", float(largest), LIMIT, "of the scale")
    return coder.proposed()
