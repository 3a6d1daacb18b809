"""The rate of matrix products, and the model that ONNX Runtime multiplies with."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from polc_runtime.bench import memory, sgemm


def test_model_is_whole_and_multiplies():
    random = np.random.default_rng(0)
    a, b = random.standard_normal((5, 300), np.float32), random.standard_normal((300, 7), np.float32)
    data = sgemm.matmul_model(5, b)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    assert [(value.name, value.shape) for value in session.get_inputs()] == [("a", [5, 300])]
    (c,) = session.run(["c"], {"a": a})
    np.testing.assert_allclose(c, a.astype(float) @ b.astype(float), rtol=1e-4, atol=1e-4)


def test_limit_is_the_largest_median_of_all_products(monkeypatch):
    monkeypatch.setattr(sgemm, "SHAPES", ((64, 64, 64), (128, 32, 16)))
    rates = sgemm.Sgemm(threads=1)
    for _ in range(3):
        rates.sample()
    found = rates.to_dict()
    products = {(each["library"], tuple(each["shape"])) for each in found["rates"]}
    assert products == {(library, s) for library in ("numpy", "onnxruntime") for s in sgemm.SHAPES}
    assert found["samples"] == 3 and all(len(samples) == 3 for samples in rates.rates.values())
    medians = {key: np.median(samples) / 1e9 for key, samples in rates.rates.items()}
    assert found["limit_gflops"] == pytest.approx(max(medians.values()))
    limit_of = found["limit_of"]["library"], tuple(found["limit_of"]["shape"])
    assert medians[limit_of] == max(medians.values())
    assert found["best_gflops"] == pytest.approx(max(map(max, rates.rates.values())) / 1e9)


def test_peak_is_at_least_what_was_held():
    before = memory.resident_bytes()
    if before is None:
        pytest.skip("this system does not tell the resident memory")
    reset = memory.reset_peak()
    held = np.ones(1 << 23)
    assert memory.peak_bytes() >= before + held.nbytes // 2
    del held
    if reset:
        assert memory.reset_peak() and memory.peak_bytes() < before + (48 << 20)
