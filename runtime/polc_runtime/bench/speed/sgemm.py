"""The rate of single-precision matrix products in this process: the limit that times are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHAPES = ((1024, 1024, 1024), (2048, 2048, 2048), (98304, 128, 256))
"""(m, k, n) of the products [m,k] x [k,n]: two square ones, and a layer's on all positions of a picture."""

Shape = tuple[int, int, int]
Product = Callable[[], object]

_FLOAT, _IR_VERSION, _OPSET = 1, 8, 13


@dataclass
class Sgemm:
    """Samples of the rate, in FLOP/s, by library and shape; `sample` is called between the timed runs.

    NumPy's library uses as many threads as its environment variables say, so they are set before the process
    starts.

    Args:
        threads: of ONNX Runtime.
    """

    threads: int
    rates: dict[tuple[str, Shape], list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(0)
        self._products: dict[tuple[str, Shape], Product] = {}
        for m, k, n in SHAPES:
            a = random.standard_normal((m, k), np.float32)
            b = random.standard_normal((k, n), np.float32)
            products = {
                "numpy": _numpy_product(a, b),
                "onnxruntime": _onnxruntime_product(a, b, self.threads),
            }
            for library, product in products.items():
                if product is not None:
                    product()
                    self._products[library, (m, k, n)] = product
                    self.rates[library, (m, k, n)] = []

    def sample(self) -> None:
        """Times every product once."""
        for (library, (m, k, n)), product in self._products.items():
            started = time.perf_counter()
            product()
            self.rates[library, (m, k, n)].append(2 * m * k * n / (time.perf_counter() - started))

    def to_dict(self) -> dict[str, Any]:
        """The rates as JSON-able data, in GFLOP/s.

        `limit` is the largest median of all libraries and shapes, `best` the largest single sample.
        """
        medians = {key: float(np.median(rates)) for key, rates in self.rates.items()}
        library, shape = max(medians, key=lambda key: medians[key])
        return {
            "limit_gflops": medians[library, shape] / 1e9,
            "best_gflops": max(map(max, self.rates.values())) / 1e9,
            "limit_of": {"library": library, "shape": list(shape)},
            "samples": len(self.rates[library, shape]),
            "rates": [
                {
                    "library": library,
                    "shape": list(shape),
                    "median_gflops": medians[library, shape] / 1e9,
                    "best_gflops": max(rates) / 1e9,
                }
                for (library, shape), rates in self.rates.items()
            ],
        }


def _numpy_product(a: NDArray[np.float32], b: NDArray[np.float32]) -> Product:
    out = np.empty((a.shape[0], b.shape[1]), np.float32)
    return lambda: np.matmul(a, b, out=out)


def _onnxruntime_product(a: NDArray[np.float32], b: NDArray[np.float32], threads: int) -> Product | None:
    """A product by ONNX Runtime; None where that is not installed."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # not into what is timed next
    session = ort.InferenceSession(matmul_model(a.shape[0], b), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": a})


def matmul_model(rows: int, weight: NDArray[np.float32]) -> bytes:
    """An ONNX model of one product, `c` [rows,n] = `a` [rows,k] x `weight` [k,n], as onnx.proto has it."""
    k, n = weight.shape
    tensor = b"".join(
        [_integer(1, k), _integer(1, n), _integer(2, _FLOAT), _bytes(8, b"b"), _bytes(9, weight.tobytes())]
    )
    node = b"".join([_bytes(1, b"a"), _bytes(1, b"b"), _bytes(2, b"c"), _bytes(4, b"MatMul")])
    values = [_bytes(11, _value(b"a", (rows, k))), _bytes(12, _value(b"c", (rows, n)))]
    graph = b"".join([_bytes(1, node), _bytes(2, b"product"), _bytes(5, tensor), *values])
    return b"".join([_integer(1, _IR_VERSION), _bytes(7, graph), _bytes(8, _integer(2, _OPSET))])


def _value(name: bytes, shape: tuple[int, int]) -> bytes:
    """A ValueInfoProto of a float tensor."""
    axes = b"".join(_bytes(1, _integer(1, side)) for side in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _integer(1, _FLOAT) + _bytes(2, axes)))


def _integer(number: int, value: int) -> bytes:
    """A protobuf field of a whole number."""
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    """A protobuf field of text, bytes or a message."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
