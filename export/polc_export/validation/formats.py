"""Proves derived formats of graphs equal to the float32 ONNX files they come from, in ONNX Runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import onnx
import onnxruntime as ort

from polc_runtime import Bundle, Codec
from polc_runtime.backends import Backend, BackendBase, BackendOptions, FloatArray, make_backend
from polc_runtime.backends.op_library import find_op_library
from polc_runtime.bundle import TENSORRT_PLUGIN
from polc_runtime.pictures.images import Pixels, pad
from polc_runtime.pictures.preprocess import normalise

from ..checks import TOLERANCE, Checks, Report, crop, relative_error
from ..formats import FP16, Added
from ..onnx.attention_function import add_attention_function
from .codec import check_round_trip
from .runs import GraphRun, cases, record
from .tasks import differing, fitting_cases, task_feeds

HALF_TOLERANCE = 5e-2
"""Largest error of a float16 graph's latent or logits, in units of its standard deviation where above 1."""
HALF_TIE = 5e-3
"""How far a float16 graph may move each of two logits, likewise, for them to count as a tie."""
HALF_FLIPS = 0.01
"""Largest share of a float16 graph's predictions that may differ, ties aside."""
HALF_PSNR = 50.0
"""Least PSNR, in dB, of a float16 synthesis against the float32 one, of the same latent."""
HALF_CODEC_PSNR = 25.0
"""Least PSNR, in dB, of pictures that float16 graphs coded and decoded against those of the float32 graphs.

A latent that moves a little over the boundary of its symbol comes back a whole step away, so that this
depends on how coarse the quality is.
"""
MAX_PSNR = 100.0
"""What stands for the PSNR of equal pictures."""

CASES = ((192, 256, 1.0), (320, 192, 1.5 / 7))
"""Size of each comparison, and where its quality lies in the range."""
TASK_CASES = 2
"""How many latents each task is compared on."""


def validate_formats(
    bundle: Bundle, added: Sequence[Added], photo: Pixels, report: Report = lambda line: None
) -> Checks:
    """Every check of the formats that were added to a bundle.

    Args:
        bundle: the bundle that holds them.
        added: what was derived.
        photo: uint8 [H,W,3].
        report: called with a line for each format begun.
    """
    checks = Checks()
    if not added:
        return checks
    kinds = dict.fromkeys((each.format, each.precision) for each in added)
    with Codec(bundle) as codec:
        runs = [
            *_codec_runs(codec, photo),
            *_task_runs(codec, photo, [each.graph for each in added]),
        ]
        for kind, precision in kinds:
            names = {v.graph for v in added if (v.format, v.precision) == (kind, precision)}
            words = [kind, precision] if precision == FP16 else [kind]
            checks.prefix = "".join(f"{word} " for word in words if word)
            report(f"comparing {checks.prefix}with fp32")
            tested = _backend(bundle, kind, precision)
            for run in runs:
                if run.graph in names:
                    _compare(checks, run, tested.run(run.graph, run.inputs), precision)
            if not kind:
                _compare_codecs(checks, codec, tested, photo)
            tested.close()
    checks.prefix = ""
    return checks


class DerivedBackend(BackendBase):
    """Runs the files of one of TensorRT's formats in ONNX Runtime, unoptimised, as a stand-in for TensorRT.

    The operator library serves attention nodes of float32, a body without subgraphs the others.

    Args:
        bundle: the bundle.
        kind: the format, `TENSORRT` or `TENSORRT_PLUGIN`.
        precision: fp32 or fp16.
    """

    def __init__(self, bundle: Bundle, kind: str, precision: str) -> None:
        super().__init__(BackendOptions(precision))
        self.name = kind
        self.bundle = bundle
        self.precision = precision
        self._sessions: dict[str, ort.InferenceSession] = {}

    def _run(self, graph: str, inputs: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        if graph not in self._sessions:
            self._sessions[graph] = self._make_session(graph)
        session = self._sessions[graph]
        names = [value.name for value in session.get_outputs()]
        feeds = {value.name: inputs[value.name] for value in session.get_inputs()}
        return dict(zip(names, session.run(names, feeds), strict=True))

    def close(self) -> None:
        """Drops every session."""
        super().close()
        self._sessions.clear()

    def _make_session(self, name: str) -> ort.InferenceSession:
        stored = self.bundle.manifest.graph(name, self.precision).formats[self.name]
        data = self.bundle.read(stored.file, stored.sha256)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.name == TENSORRT_PLUGIN:
            library = find_op_library()
            if library.registers and self.precision != FP16:
                options.register_custom_ops_library(str(library.path))
            else:
                model = onnx.load_model_from_string(data)
                add_attention_function(model, loop=False, half=self.precision == FP16)
                data = model.SerializeToString()
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def psnr(found: FloatArray, expected: FloatArray) -> float:
    """PSNR in dB of images in 0..1, at most `MAX_PSNR`."""
    if found.shape != expected.shape:
        return float("nan")
    error = float(np.mean((found.astype(np.float64) - expected) ** 2))
    return min(MAX_PSNR, -10 * math.log10(error)) if error else MAX_PSNR


def _backend(bundle: Bundle, kind: str, precision: str) -> Backend:
    if kind:
        return DerivedBackend(bundle, kind, precision)
    return make_backend("onnxruntime", bundle, BackendOptions(precision))


def _codec_runs(codec: Codec, photo: Pixels) -> Iterator[GraphRun]:
    """What every graph of the codec is fed in whole encodes and decodes, and what its ONNX file gives."""
    names = [None, *(variant.name for variant in codec.bundle.manifest.variants)]
    for height, width, quality in cases(codec.plan, CASES):
        for name in names:
            yield from record(codec, crop(photo, height, width), quality, name)


def _task_runs(codec: Codec, photo: Pixels, names: Sequence[str]) -> Iterator[GraphRun]:
    """The same of the tasks, on decoded latents of the photo."""
    for task in codec.bundle.manifest.tasks:
        if not set(names) & {task.graph, task.pixels_graph}:
            continue
        for height, width, quality in islice(fitting_cases(task.sizes, codec.plan), TASK_CASES):
            latent = codec.decode(codec.compress(crop(photo, height, width), quality))
            feeds = {task.graph: task_feeds([latent])}
            if task.pixels_graph is not None:
                image = normalise(pad(codec.synthesise(latent), codec.plan.pad), task.preprocessing)
                feeds[task.pixels_graph] = {"image": image}
            for graph, inputs in feeds.items():
                yield GraphRun(graph, inputs, codec.backend.run(graph, inputs))


def _compare(checks: Checks, run: GraphRun, found: Mapping[str, FloatArray], precision: str) -> None:
    """One run of a derived file with the same run of the float32 file."""
    for name, expected in run.outputs.items():
        label = f"{run.graph}.{name}"
        if precision != FP16:
            checks.add(label, relative_error(found[name], expected), TOLERANCE)
        elif name == "image":
            checks.add_least(f"{label} PSNR", psnr(found[name], expected), HALF_PSNR, "dB")
        else:
            checks.add(label, relative_error(found[name], expected), HALF_TOLERANCE)
        if name == "logits" and precision == FP16:
            share = differing(found[name], expected, HALF_TIE)
            checks.add_agreement(f"{run.graph} top-1 agreement with fp32, ties aside", share, HALF_FLIPS)


def _compare_codecs(checks: Checks, codec: Codec, tested: Backend, photo: Pixels) -> None:
    """Whole files of the float16 graphs: decoded as encoded, and like those of the float32 graphs."""
    with Codec(codec.bundle, tested) as half:
        check_round_trip(checks, half, photo)
        for height, width, quality in cases(codec.plan, CASES):
            pixels = crop(photo, height, width)
            pictures = [each.reconstruct(pixels, quality) for each in (half, codec)]
            checks.add_least("reconstruction PSNR", psnr(*pictures), HALF_CODEC_PSNR, "dB")
