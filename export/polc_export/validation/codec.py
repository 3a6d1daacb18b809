"""Proves a bundle equal to its PyTorch model: every graph, on a photo, at several qualities and sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from polc_runtime import Bundle, Codec
from polc_runtime.backends import Backend, FloatArray
from polc_runtime.bitstream.schedule import gather
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.pictures.images import Pixels, from_tensor, to_tensor

from ..checks import Checks, Report, crop, named_checks, relative_error
from .runs import cases, record

if TYPE_CHECKING:
    import polc

SYMBOL_TOLERANCE = 2e-4
"""Largest share of symbols, and of table rows, that may differ: values that lie on a boundary.

One of a step may always: of a small model's symbols a single one is a larger share.
"""
CASES = ((192, 256, 0.0), (192, 256, 1.0), (320, 192, 1.5 / 7), (320, 192, 5 / 7), (576, 512, 3 / 7))
"""Size of each comparison, and where its quality lies in the range."""
ROUND_TRIPS = ((191, 193, 0.0), (1, 1, 1.5 / 7), (192, 256, 1.0))
"""The same for whole files, which are padded."""


def compare_graphs(
    checks: Checks,
    reference: Codec,
    tested: Backend,
    photo: Pixels,
    report: Report,
    variant: str | None = None,
) -> None:
    """Feeds every graph of `tested` what `reference` had, and compares the outputs."""
    plan, tables = reference.plan, reference.latent_coder.tables
    steps = {step.graph: step for step in plan.steps}
    for height, width, quality in cases(plan, CASES):
        report(f"comparing {width}x{height} at quality {quality:g}")
        runs = record(reference, crop(photo, height, width), quality, variant)
        y = runs[0].outputs["y"][0]
        for run in runs:
            found = tested.run(run.graph, run.inputs)
            for name, expected in run.outputs.items():
                checks.add(f"{run.graph}.{name}", relative_error(found[name], expected))
            if run.graph in steps:
                _compare_symbols(checks, tables, gather(y, steps[run.graph]), found, run.outputs)


def _compare_symbols(
    checks: Checks,
    tables: EntropyTables,
    values: FloatArray,
    found: Mapping[str, FloatArray],
    expected: Mapping[str, FloatArray],
) -> None:
    """Share of a step's symbols and table rows that come out differently."""
    symbols = [np.rint(values - outputs.get("means", 0)) for outputs in (found, expected)]
    rows = [tables.indexes(outputs["scales"]) for outputs in (found, expected)]
    for name, (ours, theirs) in (("symbols", symbols), ("table rows", rows)):
        wrong = max(0, np.count_nonzero(ours != theirs) - 1) / ours.size
        checks.add(f"{name} that differ", wrong, SYMBOL_TOLERANCE, "of all")


def check_batches(checks: Checks, codec: Codec, photo: Pixels) -> None:
    """A batch that mixes qualities gives what its samples give alone."""
    tested, offered = codec.backend, codec.plan.quality
    height, width = cases(codec.plan, CASES)[0][:2]
    images = [to_tensor(crop(photo[shift:], height, width)) for shift in (0, 64)]
    levels = [np.array([quality], np.float32) for quality in (offered.min, offered.max)]
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


def check_round_trip(checks: Checks, codec: Codec, photo: Pixels, variant: str | None = None) -> None:
    """Files decode to exactly the image that the encoder's own latent gives, whatever the size."""
    low, high = codec.plan.quality.min, codec.plan.quality.max
    for height, width, share in ROUND_TRIPS:
        pixels, quality = crop(photo, height, width), low + share * (high - low)
        data = codec.compress(pixels, quality, variant=variant)
        expected = from_tensor(codec.reconstruct(pixels, quality, variant), height, width)
        wrong = int((codec.decompress(data) != expected).sum())
        checks.add("decoded pixels that differ from the encoder's", wrong, 0, "pixels")


def validate(
    bundle: Bundle,
    model: polc.CodecModel,
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
        compare_graphs(checks, codec.over(TorchBackend(model)), codec.backend, photo, report)
        report("comparing batches and whole files")
        check_batches(checks, codec, photo)
        check_round_trip(checks, codec, photo)
    return checks


def validate_variant(
    bundle: Bundle,
    name: str,
    model: polc.CodecModel,
    photo: Pixels,
    report: Report = lambda line: None,
    backend: Backend | None = None,
) -> Checks:
    """Every check of a variant's image networks against the PyTorch model they were made from.

    The entropy path is compared too: the variant's must be the bundle's.

    Args:
        bundle: the bundle.
        name: of the variant.
        model: the variant's.
        photo: uint8 [H,W,3].
        report: called with a line for each case begun.
        backend: as in `validate`.
    """
    from polc.backends.torch import TorchBackend

    checks = named_checks(backend)
    checks.prefix += f"variant {name}: "
    with Codec(bundle, backend or "onnxruntime") as codec:
        reference = codec.over(TorchBackend(model, variant=bundle.manifest.variant(name)))
        compare_graphs(checks, reference, codec.backend, photo, report, name)
        check_round_trip(checks, codec, photo, name)
    return checks
