"""Makes tiny bundles whose coding plans need version 2 of the bitstream: python tests/format/plan_bundles.py

Their networks are a few small convolutions with weights by formula; their images look like coarse mosaics.
The bundles are kept in `plans/`, since golden files are bound to them: what is there is never made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from polc_runtime.bitstream.tables import CdfTable, EntropyTables

FOLDER = Path(__file__).parent / "plans"
OPSET, IR_VERSION = 17, 8
SCALES = (0.11, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.9, 8.3, 14.0)
"""The scale table. Some scales of the hyper-latents' graphs are exactly an entry."""

Array = np.ndarray
Axes = dict[str, list[Any]]

ANCHORS = [[0, 0], [1, 1]]
CODING: dict[str, dict[str, Any]] = {
    "mean-scale": {
        "pad": {"multiple": 64, "min": 64},
        "quality": {"range": [3, 3], "default": 3},
        "latent": {"channels": 6, "stride": 16},
        "hyper": {"channels": 4, "stride": 64, "graph": "hyper_synthesis"},
        "steps": [{"graph": "hyper_synthesis", "channels": [0, 6], "positions": "all"}],
        "reach": {"y": 16, "z": 64, "image": 17, "min": 64},
    },
    "checkerboard": {
        "pad": {"multiple": 128, "min": 128},
        "quality": {"range": [1, 12], "default": 6},
        "latent": {"channels": 6, "stride": 8},
        "hyper": {"channels": 4, "stride": 32, "graph": "features"},
        "steps": [
            {"graph": "anchors", "channels": [0, 4], "positions": ANCHORS},
            {"graph": "others", "channels": [0, 4], "positions": [[0, 1]]},
            {"graph": "others", "channels": [0, 4], "positions": [[1, 0]]},
            {"graph": "features", "channels": [4, 5], "positions": "all"},
            {"graph": "rest", "channels": [5, 6], "positions": "all"},
        ],
        "reach": {"y": 8, "z": 32, "image": 9, "min": 128},
    },
    "factorised": {
        "pad": {"multiple": 16, "min": 48},
        "quality": {"range": [0.5, 4], "default": 1},
        "latent": {"channels": 4, "stride": 8},
        "hyper": None,
        "steps": [
            {"graph": None, "channels": [0, 3], "positions": [[1, 1], [0, 0], [0, 1], [1, 0]]},
            {"graph": None, "channels": [3, 4], "positions": "all"},
        ],
        "reach": None,
    },
}


class Net:
    """A graph under construction; a method adds nodes and returns the name of what they give."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def conv(self, x: str, weight: Array, stride: int = 1) -> str:
        """A convolution that keeps the size, or divides it by the stride."""
        before, after = ((weight.shape[2] - stride + more) // 2 for more in (0, 1))
        pads = [before, before, after, after]
        return self.add("Conv", x, self.constant(weight), pads=pads, strides=[stride, stride])

    def pool(self, x: str, size: int) -> str:
        return self.add("AveragePool", x, kernel_shape=[size, size], strides=[size, size])

    def enlarge(self, x: str, factor: int) -> str:
        scales = self.constant([1, 1, factor, factor])
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.add("Resize", x, "", scales, **how)

    def times_quality(self, op: str, x: str, gain: float) -> str:
        """x times, or divided by, the quality and the gain."""
        shape = self.constant([-1, 1, 1, 1], np.int64)
        factor = self.add("Mul", self.add("Reshape", "quality", shape), self.constant(gain))
        return self.add(op, x, factor)

    def scale(self, x: str) -> str:
        return self.add("Add", self.add("Abs", x), self.constant(0.125))

    def gather(self, x: str, positions: list[list[int]]) -> str:
        """The places of the positions, one after another on the axis of channels."""
        end, axes, steps = (self.constant(value, np.int64) for value in ([2**31 - 1] * 2, [2, 3], [2, 2]))
        parts = [
            self.add("Slice", x, self.constant(position, np.int64), end, axes, steps)
            for position in positions
        ]
        return self.add("Concat", *parts, axis=1)


@dataclass(frozen=True)
class Graph:
    """A graph's interface, and what builds it: gives the values of the outputs in order."""

    name: str
    inputs: Axes
    outputs: Axes
    build: Callable[[Net], Iterable[str]]

    def model(self) -> bytes:
        net = Net()
        for name, value in zip(self.outputs, self.build(net), strict=True):
            net.nodes.append(helper.make_node("Identity", [value], [name]))
        values = [
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in axes.items()]
            for axes in (self.inputs, self.outputs)
        ]
        graph = helper.make_graph(net.nodes, self.name, *values, net.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="polc")
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()


def formula(*shape: int, step: int = 37) -> Array:
    """Weights that are multiples of 1/64, from -11/64 to 11/64."""
    return ((np.arange(np.prod(shape)) * step + 5) % 23 - 11).reshape(shape).astype(np.float32) / 64


def picture_graphs(plan: dict[str, Any]) -> list[Graph]:
    """The analysis and the synthesis: the first three channels of y are the colours, the others a mixture."""
    latent, hyper, multiple = plan["latent"], plan["hyper"], plan["pad"]["multiple"]
    channels, stride = latent["channels"], latent["stride"]

    def analysis(net: Net) -> list[str]:
        weight = formula(channels, 3, 4, 4)
        weight[:3] = np.eye(3)[:, :, None, None] * np.pad(np.full((2, 2), 0.25), 1)
        pooled = net.pool(net.add("Sub", "image", net.constant(0.5)), stride // 2)
        y = net.times_quality("Mul", net.conv(pooled, weight, 2), 6)
        if not hyper:
            return [y]
        strength = net.pool(net.add("Abs", y), hyper["stride"] // stride)
        return [y, net.conv(strength, np.abs(formula(hyper["channels"], channels, 1, 1, step=31)) * 4)]

    def synthesis(net: Net) -> list[str]:
        weight = formula(3, channels, 3, 3) / 8
        weight[:, :3, 1, 1] = np.eye(3)
        coarse = net.times_quality("Div", net.conv("y_hat", weight), 6)
        fine = net.conv(net.enlarge(coarse, stride), np.eye(3)[:, :, None, None] * np.full((3, 3), 1 / 9))
        light = net.add("Add", fine, net.constant(0.5))
        return [net.add("Clip", light, net.constant(0), net.constant(1))]

    image = {"image": ["batch", 3, f"{multiple}*h", f"{multiple}*w"]}
    y = grid(channels, multiple // stride)
    z = {"z": grid(hyper["channels"], multiple // hyper["stride"])} if hyper else {}
    quality = {"quality": ["batch"]}
    return [
        Graph("analysis", image | quality, {"y": y} | z, analysis),
        Graph("synthesis", {"y_hat": y} | quality, image, synthesis),
    ]


def grid(channels: int, factor: int) -> list[Any]:
    return ["batch", channels, f"{factor}*h", f"{factor}*w"]


def mean_scale_graphs() -> list[Graph]:
    """A hyper-synthesis that gives the scales and means of the only step, in exact arithmetic."""

    def hyper(net: Net) -> list[str]:
        z = net.enlarge("z_hat", 4)
        return [net.scale(net.conv(z, 2 * formula(6, 4, 3, 3))), net.conv(z, formula(6, 4, 3, 3, step=29))]

    inputs = {"z_hat": grid(4, 1), "quality": ["batch"]}
    return [Graph("hyper_synthesis", inputs, {"scales": grid(6, 4), "means": grid(6, 4)}, hyper)]


def checkerboard_graphs() -> list[Graph]:
    """Graphs that use all that a plan allows.

    The hyper-latent's graph serves a step too, and one graph serves two steps. The first step's `context`
    replaces the one that the hyper-latent's graph gives. The last step's graph gives no means.
    """

    def features(net: Net) -> list[str]:
        z = net.enlarge("z_hat", 4)
        given = net.times_quality("Mul", net.conv(z, formula(2, 4, 3, 3)), 0.125)
        scales = net.scale(net.conv(z, 2 * formula(1, 4, 3, 3)))
        return [scales, net.conv(z, formula(1, 4, 1, 1)), given, net.add("Neg", given)]

    def parameters(net: Net, x: str, positions: list[list[int]], inputs: int) -> list[str]:
        scales = net.scale(net.conv(x, formula(4, inputs, 3, 3, step=41)))
        means = net.conv(x, formula(4, inputs, 3, 3, step=31))
        return [net.gather(scales, positions), net.gather(means, positions)]

    def anchors(net: Net) -> list[str]:
        x = net.add("Concat", "features", "y_hat", axis=1)
        return [*parameters(net, "features", ANCHORS, 2), net.conv(x, formula(2, 8, 1, 1))]

    def others(net: Net) -> list[str]:
        x = net.add("Concat", "context", "features", "y_hat", axis=1)
        return parameters(net, x, [[0, 1]], 10)

    def rest(net: Net) -> list[str]:
        x = net.add("Concat", "context", "y_hat", axis=1)
        return [net.scale(net.conv(x, formula(1, 8, 3, 3)))]

    given, context, y_hat = {"features": grid(2, 16)}, {"context": grid(2, 16)}, {"y_hat": grid(6, 16)}
    z_hat = {"z_hat": grid(4, 4), "quality": ["batch"]}

    def pair(channels: int, factor: int) -> Axes:
        return {"scales": grid(channels, factor), "means": grid(channels, factor)}

    return [
        Graph("features", z_hat, pair(1, 16) | given | context, features),
        Graph("anchors", given | y_hat, pair(8, 8) | context, anchors),
        Graph("others", context | given | y_hat, pair(4, 8), others),
        Graph("rest", context | y_hat, {"scales": grid(1, 16)}, rest),
    ]


GRAPHS: dict[str, Callable[[], list[Graph]]] = {
    "mean-scale": mean_scale_graphs,
    "checkerboard": checkerboard_graphs,
    "factorised": list,
}


def laplace(scale: float, span: int, zero: int) -> list[int]:
    """Cumulative frequencies of the symbols -span to span and of the escape; 0 has `zero` of them or more."""
    ratio, sides = round(256 * np.exp(-(2**0.5) / scale)), [1 << 24]
    for _ in range(span):
        sides.append(sides[-1] * ratio >> 8)
    weights = [*sides[:0:-1], *sides]
    counts = [1 + weight * (65532 - zero - len(weights)) // sum(weights) for weight in weights]
    counts[span] += 65532 - sum(counts)
    return [0, *np.cumsum([*counts, 4]).tolist()]


def table(scales: Sequence[float], zero: int = 0) -> CdfTable:
    """A table with a row for each scale."""
    spans = [int(4 * scale) + 1 for scale in scales]
    rows = [laplace(scale, span, zero) for scale, span in zip(scales, spans, strict=True)]
    cdf = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for i, row in enumerate(rows):
        cdf[i, : len(row)] = row
    return CdfTable(cdf, np.array([len(row) for row in rows], np.int32), -np.array(spans, np.int32))


def tables(plan: dict[str, Any]) -> EntropyTables:
    """A factorised prior whose channels differ, with mostly zeros in all; and the scales' table."""
    channels = (plan["hyper"] or plan["latent"])["channels"]
    medians = (np.arange(channels) % 3 - 1).astype(np.float32) / 4
    prior = table([0.5 + 0.75 * channel for channel in range(channels)], 64000)
    return EntropyTables(prior, medians, table(SCALES), np.array(SCALES, np.float32))


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def make(name: str, folder: Path) -> None:
    """Writes a bundle into a new folder."""
    plan = CODING[name]
    (folder / "graphs").mkdir(parents=True)
    tables(plan).save(folder / "entropy.npz")
    entropy = (folder / "entropy.npz").read_bytes()
    graphs = [*GRAPHS[name](), *picture_graphs(plan)]
    models = {graph.name: graph.model() for graph in graphs}
    exact = [graph.name for graph in GRAPHS[name]()]
    layout = json.dumps({key: plan[key] for key in ("pad", "latent", "hyper", "steps")}).encode()
    for graph, model in models.items():
        (folder / f"graphs/{graph}.onnx").write_bytes(model)
    manifest = {
        "format": [1, 5],
        "name": name,
        "model": {},
        "fingerprint": digest(layout, entropy, *(models[graph] for graph in exact)),
        "codec_id": digest(*models.values()),
        "quality_range": plan["quality"]["range"],
        "size": plan["pad"],
        "coding": plan,
        "graphs": [
            {
                "name": graph.name,
                "file": f"graphs/{graph.name}.onnx",
                "sha256": digest(models[graph.name]),
                "precision": "fp32",
                "opset": OPSET,
                "inputs": graph.inputs,
                "outputs": graph.outputs,
                "exact": graph.name in exact,
            }
            for graph in graphs
        ],
        "entropy": {"file": "entropy.npz", "sha256": digest(entropy)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Makes the bundles that are not there yet."""
    for name in CODING:
        if not (FOLDER / name).exists():
            make(name, FOLDER / name)
            size = sum(path.stat().st_size for path in (FOLDER / name).rglob("*.*"))
            print(f"{name}: {size} bytes")


if __name__ == "__main__":
    main()
