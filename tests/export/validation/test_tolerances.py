"""Exported bundles say how far the scales of backends differ, and are calibrated for more than that."""

from polc_export.validation.tolerances import LIMIT, MARGIN
from polc_runtime import Bundle
from polc_runtime.bitstream.calibration import LARGEST_EXPONENT


def test_an_exported_bundle_has_measured_tolerances(tiny_bundle):
    manifest = Bundle.load(tiny_bundle).manifest
    (check,) = [check for check in manifest.validation if check["name"] == "scales between backends"]
    assert 0 < check["error"] < check["limit"] == LIMIT
    assert [quality for quality, _ in manifest.tolerances.rows] == [1.0, 4.5, 8.0]
    exponents = [exponent for _, row in manifest.tolerances.rows for exponent in row]
    # the least exponent is the one of the largest difference
    assert 2.0 ** -min(exponents) >= MARGIN * check["error"] > 2.0 ** -(min(exponents) + 1)
    assert max(exponents) <= LARGEST_EXPONENT
