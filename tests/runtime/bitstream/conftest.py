from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polc_runtime.bitstream import rans
from polc_runtime.bitstream.tables import CdfTable, EntropyTables


@pytest.fixture(params=["native", "python"])
def coder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test once with each implementation."""
    if request.param == "native" and rans._rans is None:
        pytest.skip("the native coder is not built")
    monkeypatch.setenv("POLC_CODER", request.param)
    return request.param


@pytest.fixture(scope="session")
def golden_tables(golden: Path) -> EntropyTables:
    stored = np.load(golden / "entropy_tables.npz")
    return EntropyTables(
        hyper=CdfTable(stored["eb_quantized_cdf"], stored["eb_cdf_length"], stored["eb_offset"]),
        medians=np.linspace(-1, 1, 192, dtype=np.float32),
        latent=CdfTable(stored["gc_quantized_cdf"], stored["gc_cdf_length"], stored["gc_offset"]),
        scale_table=stored["gc_scale_table"],
    )


def _gaussian(rows: int, largest: float) -> tuple[CdfTable, np.ndarray]:
    scales = np.exp(np.linspace(np.log(0.11), np.log(largest), rows)).astype(np.float32)
    radii = [max(1, int(np.ceil(3 * s))) for s in scales]
    cdf = np.zeros((rows, 2 * max(radii) + 3), np.int32)
    for r, (scale, radius) in enumerate(zip(scales, radii, strict=True)):
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 2) / scale) ** 2)
        weights[-1] = 0.01  # the escape
        widths = 1 + np.floor(weights / weights.sum() * (65536 - len(weights)))
        widths[radius] += 65536 - widths.sum()
        cdf[r, 1 : len(widths) + 1] = np.cumsum(widths)
    lengths = np.array([2 * radius + 3 for radius in radii], np.int32)
    return CdfTable(cdf, lengths, np.array([-radius for radius in radii], np.int32)), scales


@pytest.fixture(scope="session")
def tables() -> EntropyTables:
    """Small tables of the right kind, made without any reference data."""
    latent, scales = _gaussian(16, 12.0)
    hyper, _ = _gaussian(8, 4.0)
    return EntropyTables(hyper, np.linspace(-0.4, 0.4, 8, dtype=np.float32), latent, scales)


@pytest.fixture(scope="session")
def latent_symbols(tables: EntropyTables) -> tuple[np.ndarray, np.ndarray]:
    """Symbols as Gaussian as the tables assume, some of them escapes, and their indexes."""
    random = np.random.default_rng(5)
    indexes = random.integers(0, tables.latent.rows, 5000).astype(np.int32)
    symbols = np.rint(random.normal(size=5000) * 1.3 * tables.scale_table[indexes]).astype(np.int32)
    return symbols, indexes
