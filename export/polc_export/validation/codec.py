"""Proves a bundle equal to its PyTorch model: every graph, on a photo, at several qualities and sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polc_runtime import Bundle, Codec
from polc_runtime.backends import Backend, FloatArray
from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.bitstream.schedule import gather, scatter
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.codec.latent import quantize
from polc_runtime.pictures.images import Pixels, from_tensor, to_tensor

from .checks import Checks, Report, crop, named_checks, relative_error

if TYPE_CHECKING:
    import polc

SYMBOL_TOLERANCE = 2e-4
"""Largest share of symbols, and of table rows, that may differ: values that lie on a boundary."""
CASES = ((192, 256, 1.0), (192, 256, 8.0), (320, 192, 2.5), (320, 192, 6.0), (576, 512, 4.0))
"""Height, width and quality of each comparison."""
ROUND_TRIPS = ((191, 193, 1.0), (1, 1, 2.5), (192, 256, 8.0))
"""The same for whole files."""


@dataclass(frozen=True)
class GraphRun:
    """What one graph was fed and gave."""

    graph: str
    inputs: dict[str, FloatArray]
    outputs: dict[str, FloatArray]


def run_graphs(
    backend: Backend,
    tables: EntropyTables,
    plan: CodingPlan,
    image: FloatArray,
    quality: float,
    hyper_analysis: bool = True,
) -> Iterator[GraphRun]:
    """Runs a whole encode and decode of an image [1,3,H,W], graph after graph, each on what came before.

    Args:
        backend: what runs the graphs.
        tables: for the hyper-latent's medians.
        plan: the model's.
        image: float32 in 0..1.
        quality: of the compression.
        hyper_analysis: whether there is that graph, which gives the same z as analysis.
    """
    level = np.array([quality], np.float32)

    def run(graph: str, **inputs: FloatArray) -> GraphRun:
        return GraphRun(graph, inputs, backend.run(graph, inputs))

    yield (analysis := run("analysis", image=image, quality=level))
    y, z = analysis.outputs["y"], analysis.outputs["z"]
    if hyper_analysis:
        yield run("hyper_analysis", y=y, quality=level)
    medians = tables.medians[:, None, None]
    z_hat = quantize(z - medians, "hyper-latent").astype(np.float32) + medians
    yield (hyper := run("hyper_synthesis", z_hat=z_hat, quality=level))
    y_hat = np.zeros_like(y)
    shared: dict[str, FloatArray] = {}
    for step in plan.steps:
        yield (context := run(str(step.graph), **hyper.outputs, **shared, y_hat=y_hat.copy()))
        means = context.outputs["means"][0]
        scatter(y_hat[0], step, np.rint(gather(y[0], step) - means) + means)
        shared = {k: v for k, v in context.outputs.items() if k == "channel_context"} or shared
    yield run("synthesis", y_hat=y_hat, quality=level)


def compare_graphs(
    checks: Checks,
    reference: Backend,
    tested: Backend,
    tables: EntropyTables,
    plan: CodingPlan,
    photo: Pixels,
    report: Report,
) -> None:
    """Feeds every graph of `tested` what `reference` had, and compares the outputs."""
    steps = {str(step.graph): step for step in plan.steps}
    for height, width, quality in CASES:
        report(f"comparing {width}x{height} at quality {quality:g}")
        image = to_tensor(crop(photo, height, width))
        y = np.empty(0, np.float32)
        for run in run_graphs(reference, tables, plan, image, quality):
            y = run.outputs.get("y", y)
            found = tested.run(run.graph, run.inputs)
            for name, expected in run.outputs.items():
                checks.add(f"{run.graph}.{name}", relative_error(found[name], expected))
            if run.graph in steps:
                values = gather(y[0], steps[run.graph])
                _compare_symbols(checks, tables, values, found, run.outputs)


def _compare_symbols(
    checks: Checks,
    tables: EntropyTables,
    values: FloatArray,
    found: Mapping[str, FloatArray],
    expected: Mapping[str, FloatArray],
) -> None:
    """Share of a step's symbols and table rows that come out differently."""
    symbols, rows = (
        np.mean(np.rint(values - found["means"][0]) != np.rint(values - expected["means"][0])),
        np.mean(tables.indexes(found["scales"]) != tables.indexes(expected["scales"])),
    )
    checks.add("symbols that differ", float(symbols), SYMBOL_TOLERANCE, "of all")
    checks.add("table rows that differ", float(rows), SYMBOL_TOLERANCE, "of all")


def check_batches(checks: Checks, tested: Backend, photo: Pixels) -> None:
    """A batch that mixes qualities gives what its samples give alone."""
    height, width, _ = CASES[0]
    images = [to_tensor(crop(photo[shift:], height, width)) for shift in (0, 64)]
    levels = [np.array([quality], np.float32) for quality in (1.0, 8.0)]
    batch = tested.run("analysis", {"image": np.concatenate(images), "quality": np.concatenate(levels)})
    alone = [tested.run("analysis", {"image": i, "quality": q}) for i, q in zip(images, levels, strict=True)]
    for name, value in batch.items():
        expected = np.concatenate([sample[name] for sample in alone])
        checks.add(f"analysis.{name} in a batch", relative_error(value, expected))
    latents = np.concatenate([sample["y"] for sample in alone])
    image = tested.run("synthesis", {"y_hat": latents, "quality": np.concatenate(levels)})["image"]
    singles = [
        tested.run("synthesis", {"y_hat": s["y"], "quality": q})["image"]
        for s, q in zip(alone, levels, strict=True)
    ]
    checks.add("synthesis.image in a batch", relative_error(image, np.concatenate(singles)))


def check_round_trip(checks: Checks, codec: Codec, photo: Pixels) -> None:
    """Files decode to exactly the picture that the encoder's own latent gives, whatever the size."""
    for height, width, quality in ROUND_TRIPS:
        pixels = crop(photo, height, width)
        data = codec.compress(pixels, quality)
        expected = from_tensor(codec.reconstruct(pixels, quality), height, width)
        wrong = int((codec.decompress(data) != expected).sum())
        checks.add("decoded pixels that differ from the encoder's", wrong, 0, "pixels")


def validate(
    bundle: Bundle,
    model: polc.Codec,
    photo: Pixels,
    report: Report = lambda line: None,
    backend: Backend | None = None,
) -> Checks:
    """Every check of a bundle against the PyTorch model it was made from.

    Args:
        bundle: the bundle.
        model: the model.
        photo: uint8 [H,W,3].
        report: called with a line for each case begun.
        backend: what runs the bundle's graphs, named in the checks; None for ONNX Runtime.
    """
    from polc.backends.torch import TorchBackend

    checks = named_checks(backend)
    with Codec(bundle, backend or "onnxruntime") as codec:
        tables, plan = codec.latent_coder.tables, codec.plan
        compare_graphs(checks, TorchBackend(model), codec.backend, tables, plan, photo, report)
        report("comparing batches and whole files")
        check_batches(checks, codec.backend, photo)
        check_round_trip(checks, codec, photo)
    return checks
