"""Writes the graphs of PyTorch models, and the tables, into the folder of a bundle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from polc import CodecModel, codec_id, fingerprint
from polc.graphs import GraphSpec
from polc.macs import macs_per_pixel
from polc_runtime.bitstream.calibration import Tolerances
from polc_runtime.bitstream.container import QUALITY_UNIT
from polc_runtime.bitstream.plan import VERSION_1_QUALITIES, CodingPlan, Quality
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.bundle import FORMATS, TORCHSCRIPT, GraphFile, Manifest, StoredFile
from polc_runtime.errors import UsageError

from .bundle_folder import GRAPHS, sha256, tools, write_manifest
from .checks import Report
from .onnx.graph import export_graph
from .onnx.opsets import DEFAULT_OPSET
from .tasks import TaskExport
from .torchscript import write_torchscript

ENTROPY_FILE = "entropy.npz"


def write_bundle(
    folder: Path,
    codec: CodecModel,
    tables: EntropyTables,
    name: str,
    quality: float | None = None,
    opset: int = DEFAULT_OPSET,
    notes: tuple[str, ...] = (),
    report: Report = lambda line: None,
) -> Manifest:
    """Exports every graph of a codec into an existing, empty folder.

    Args:
        folder: where to write.
        codec: the model.
        tables: its coding tables.
        name: of the model, for people.
        quality: which quality of its ladder a codec of one rate is; None for what its plan says.
        opset: of the default ONNX domain.
        notes: remarks for people.
        report: called with a line for each file written.

    Raises:
        ExportError: a graph could not be exported.
        UsageError: a quality is given for a codec that has a range of them.
    """
    tables.save(folder / ENTROPY_FILE)
    graphs = codec.graphs()
    plan = replace(
        codec.plan, quality=_offered(codec.plan, quality), macs=macs_per_pixel(graphs, codec.plan.pad)
    )
    manifest = Manifest(
        name=name,
        model=codec.config.to_dict(),
        plan=plan,
        tolerances=Tolerances.default(len(plan.steps)),
        fingerprint=fingerprint(codec, tables),
        codec_id=codec_id(codec),
        graphs=(),
        entropy_file=ENTROPY_FILE,
        entropy_sha256=sha256(folder / ENTROPY_FILE),
        tools=tools(),
        notes=notes,
    )
    manifest = add_graphs(folder, manifest, graphs.values(), opset, report)
    write_manifest(folder, manifest)
    return manifest


def add_tasks(
    folder: Path,
    manifest: Manifest,
    tasks: Sequence[TaskExport],
    opset: int = DEFAULT_OPSET,
    report: Report = lambda line: None,
) -> Manifest:
    """Exports the graphs of tasks into a bundle's folder.

    Args:
        folder: where `write_bundle` or `copy_bundle` has been.
        manifest: what that gave.
        tasks: what to add.
        opset: of the default ONNX domain.
        report: called with a line for each file written.

    Raises:
        ExportError: a graph could not be exported.
    """
    for task in tasks:
        manifest = add_graphs(folder, manifest, task.specs().values(), opset, report)
        manifest = replace(manifest, tasks=(*manifest.tasks, task.entry))
    write_manifest(folder, manifest)
    return manifest


def add_torchscript(
    folder: Path, manifest: Manifest, specs: Sequence[GraphSpec], report: Report = lambda line: None
) -> Manifest:
    """Traces graphs that a bundle's folder holds as ONNX; replaces TorchScript files that are there.

    Args:
        folder: where `write_bundle` or `copy_bundle` has been.
        manifest: what that gave.
        specs: the graphs, of exactly the bundle's weights.
        report: called with a line for each file written, and for each graph that is left without one.

    Raises:
        ExportError: a graph could not be traced.
    """
    facts = {"fingerprint": manifest.fingerprint.hex(), "codec_id": manifest.codec_id.hex()}
    stored = {}
    for spec in specs:
        file = f"{GRAPHS}/{spec.name}{FORMATS[TORCHSCRIPT]}"
        write_torchscript(folder / file, spec, {"model": manifest.model, **facts})
        stored[spec.name] = StoredFile(file, sha256(folder / file))
        report(f"{file}: {(folder / file).stat().st_size / 1e6:.1f} MB")
    graphs = [
        replace(graph, formats=graph.formats | {TORCHSCRIPT: stored[graph.name]})
        if graph.name in stored and graph.precision == "fp32"
        else graph
        for graph in manifest.graphs
    ]
    if without := [g.name for g in graphs if g.precision == "fp32" and TORCHSCRIPT not in g.formats]:
        report(f"notice: no TorchScript of {', '.join(without)}, whose checkpoint is not here")
    manifest = replace(manifest, graphs=tuple(graphs))
    write_manifest(folder, manifest)
    return manifest


def add_graphs(
    folder: Path, manifest: Manifest, specs: Iterable[GraphSpec], opset: int, report: Report
) -> Manifest:
    """Exports graphs; the manifest with them. All graphs of a bundle carry the same facts of its codec.

    Raises:
        ExportError: a graph could not be exported.
    """
    facts = {
        "polc.model": json.dumps(manifest.model, sort_keys=True),
        "polc.fingerprint": manifest.fingerprint.hex(),
        "polc.codec_id": manifest.codec_id.hex(),
    }
    (folder / GRAPHS).mkdir(exist_ok=True)
    graphs = []
    for spec in specs:
        model = export_graph(spec, opset, {**facts, "polc.graph": spec.name})
        graph = _write_graph(folder, spec, model, opset)
        graphs.append(graph)
        size = (folder / graph.file).stat().st_size
        report(f"{graph.file}: {graph.parameters:,} parameters, {size / 1e6:.1f} MB")
    return replace(manifest, graphs=(*manifest.graphs, *graphs))


def _offered(plan: CodingPlan, quality: float | None) -> Quality:
    """The qualities of a bundle."""
    if quality is None:
        return plan.quality
    if plan.quality.min < plan.quality.max:
        raise UsageError(
            f"the codec has the qualities {plan.quality.min:g} to {plan.quality.max:g}; quality=... is for "
            "codecs of one rate, and says which of a ladder's they are"
        )
    low, high = VERSION_1_QUALITIES
    quality = round(quality * QUALITY_UNIT) / QUALITY_UNIT  # as files hold it
    if not low <= quality <= high:
        raise UsageError(f"quality={quality:g} is not within {low:g} to {high:g}")
    return Quality(quality, quality, quality)


def _write_graph(folder: Path, spec: GraphSpec, model: onnx.ModelProto, opset: int) -> GraphFile:
    file = f"{GRAPHS}/{spec.name}.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, folder / file)
    return GraphFile(
        name=spec.name,
        file=file,
        sha256=sha256(folder / file),
        precision="fp32",
        opset=opset,
        inputs=spec.inputs,
        outputs=spec.outputs,
        exact=spec.exact,
        parameters=sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type == t.FLOAT),
    )
