"""Settings: ways to run a model, read from text."""

from __future__ import annotations

import numpy as np
import pytest

from polc_runtime.agreement.settings import MEAN_ERROR, NoisyBackend, Setting
from polc_runtime.bitstream.calibration import Tolerances
from polc_runtime.bundle import Bundle
from polc_runtime.errors import UsageError


def test_keys_are_read() -> None:
    setting = Setting.parse("onnxruntime:threads=2,optimisation=off,exact-attention=native,noise=0.5")
    assert (setting.backend, setting.options) == ("onnxruntime", {"threads": 2})
    assert (setting.optimisation, setting.exact_native, setting.noise) == ("off", True, 0.5)
    assert Setting.parse("torch:precision=fp64,attention=portable").options == {
        "precision": "fp64",
        "native_ops": False,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnxruntime:cores=2", "no key is named 'cores'; there are threads, device"),
        ("onnxruntime:threads=0", "threads cannot be '0'"),
        ("onnxruntime:threads", "threads cannot be ''"),
        ("onnxruntime:optimisation=max", "optimisation cannot be 'max'"),
        ("onnxruntime:noise=nan", "noise cannot be 'nan'"),
        ("torch:optimisation=off", "optimisation and exact-attention are onnxruntime's"),
    ],
)
def test_what_does_not_fit_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Setting.parse(text)


class Fixed:
    """Gives the same numbers for every graph."""

    name = "fixed"

    def run(self, graph, inputs):
        values = np.linspace(-5, 5, 1000, dtype=np.float32)
        return {"scales": values, "means": values} if graph.startswith("context") else {"params": values}

    def describe(self):
        return {"name": self.name}

    def close(self):
        pass


def test_noise_is_that_share_of_the_tolerance_and_in_the_context_graphs_alone() -> None:
    tolerances = Tolerances(((1.0, tuple(range(10, 19))), (8.0, (8,) * 9)))
    backend = NoisyBackend(Fixed(), 0.5, tolerances, Bundle.load("nano").manifest.plan)
    exact = Fixed().run("context_0", {})["scales"]

    for quality, exponents in tolerances.rows:
        feeds = {"quality": np.array([quality], np.float32)}
        np.testing.assert_array_equal(backend.run("hyper_synthesis", feeds)["params"], exact)
        for step, exponent in enumerate(exponents):
            noisy = backend.run(f"context_{step}", feeds)
            apart = np.abs(noisy["scales"] / exact - 1).max()
            assert 0.4 < apart * 2.0**exponent < 0.52
            assert np.abs(noisy["means"] / exact - 1).max() <= 0.7 * MEAN_ERROR
    assert backend.describe() == {"name": "fixed", "noise": 0.5}
