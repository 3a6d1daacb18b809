"""The rate of single-precision matrix products in this process: the limit that times are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .results import MatrixRate, ProductRate

SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (98304, 128, 256))
"""(m, k, n) of the products [m,k] x [k,n]: two square ones, and a layer's on all positions of an image."""

Shape = tuple[int, int, int]
Product = Callable[[], object]

MODEL = Path(__file__).with_name("matmul.onnx")
"""`c` [m,n] = `a` [m,k] x `b` [k,n], of any sizes; made with onnx.helper."""


class Sgemm:
    """Samples of the rate, in FLOP/s, by library and shape; `sample` is called between the timed runs.

    NumPy's library uses as many threads as its environment variables say, so they are set before the process
    starts.

    Args:
        threads: of ONNX Runtime.
    """

    def __init__(self, threads: int) -> None:
        random = np.random.default_rng(0)
        multiply = _onnxruntime(threads)
        self._products: dict[tuple[str, Shape], Product] = {}
        for m, k, n in SHAPES:
            a, b = random.standard_normal((m, k), np.float32), random.standard_normal((k, n), np.float32)
            self._products["numpy", (m, k, n)] = _numpy_product(a, b)
            if multiply is not None:
                self._products["onnxruntime", (m, k, n)] = _bound(multiply, a, b)
        for product in self._products.values():
            product()  # what is loaded on first use is not part of the time
        self.rates: dict[tuple[str, Shape], list[float]] = {key: [] for key in self._products}

    def sample(self) -> None:
        """Times every product once."""
        for (library, (m, k, n)), product in self._products.items():
            started = time.perf_counter()
            product()
            self.rates[library, (m, k, n)].append(2 * m * k * n / (time.perf_counter() - started))

    def result(self) -> MatrixRate:
        """What was sampled."""
        rates = [
            ProductRate(library, shape, float(np.median(found)) / 1e9, max(found) / 1e9)
            for (library, shape), found in self.rates.items()
        ]
        limit = max(rates, key=lambda rate: rate.median_gflops)
        return MatrixRate(
            limit_gflops=limit.median_gflops,
            best_gflops=max(rate.best_gflops for rate in rates),
            limit_of={"library": limit.library, "shape": list(limit.shape)},
            samples=len(self.rates[limit.library, limit.shape]),
            rates=tuple(rates),
        )


def _numpy_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> Product:
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _bound(multiply: Callable[..., object], a: NDArray[np.float32], b: NDArray[np.float32]) -> Product:
    return lambda: multiply(None, {"a": a, "b": b})


def _onnxruntime(threads: int) -> Callable[..., object] | None:
    """Runs `MODEL` with ONNX Runtime; None where that is not installed."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # not into what is timed next
    session = ort.InferenceSession(MODEL.read_bytes(), options, providers=["CPUExecutionProvider"])
    run: Callable[..., object] = session.run
    return run
