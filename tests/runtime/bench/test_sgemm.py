"""The rate of matrix products, the model that ONNX Runtime multiplies with, and the memory of a process."""

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from polc_runtime.bench.speed import sgemm


def test_model_is_whole_and_multiplies():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((5, 300), np.float32), random.standard_normal((300, 7), np.float32)
    onnx.checker.check_model(onnx.load(sgemm.MODEL), full_check=True)
    session = ort.InferenceSession(sgemm.MODEL, providers=["CPUExecutionProvider"])
    (c,) = session.run(["c"], {"a": a, "b": b})
    np.testing.assert_allclose(c, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-4)


def test_limit_is_the_largest_median_of_all_products(monkeypatch):
    monkeypatch.setattr(sgemm, "SHAPES", ((64, 64, 64), (128, 32, 16)))
    rates = sgemm.Sgemm(threads=1)
    for _ in range(3):
        rates.sample()
    found = asdict(rates.result())
    products = {(each["library"], tuple(each["shape"])) for each in found["rates"]}
    assert products == {(library, s) for library in ("numpy", "onnxruntime") for s in sgemm.SHAPES}
    assert found["samples"] == 3 and all(len(samples) == 3 for samples in rates.rates.values())
    medians = {key: np.median(samples) / 1e9 for key, samples in rates.rates.items()}
    assert found["limit_gflops"] == pytest.approx(max(medians.values()))
    limit_of = found["limit_of"]["library"], tuple(found["limit_of"]["shape"])
    assert medians[limit_of] == max(medians.values())
    assert found["best_gflops"] == pytest.approx(max(map(max, rates.rates.values())) / 1e9)


PEAK = """
import numpy as np
from polc_runtime.bench.speed import instruments as memory
before, reset = memory.resident_bytes(), memory.reset_peak()
if before is not None:
    held = np.ones(1 << 23)
    assert memory.peak_bytes() >= before + held.nbytes // 2
    del held
    assert not reset or (memory.reset_peak() and memory.peak_bytes() < before + (48 << 20))
"""


def test_peak_is_at_least_what_was_held():
    # In a process of its own: from one with much idle memory the system may take as much back meanwhile.
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
