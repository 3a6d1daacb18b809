"""Writes a bundle: every graph, the tables and the manifest, in a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx

from polc import Codec, codec_id, fingerprint
from polc.graphs import GraphSpec, codec_graphs
from polc_runtime.bundle import FORMATS, TORCHSCRIPT, Bundle, GraphFile, Manifest, StoredFile
from polc_runtime.coding.tables import EntropyTables
from polc_runtime.errors import ExportError

from .checks import Check, Report
from .onnx_graph import export_graph
from .opsets import DEFAULT_OPSET
from .tasks import TaskExport
from .torchscript import write_torchscript

TOOLS = ("polc", "torch", "onnx", "onnxscript", "onnxruntime", "compressai", "numpy", "timm")
ENTROPY_FILE = "entropy.npz"
GRAPHS = "graphs"


def write_bundle(
    folder: Path,
    codec: Codec,
    tables: EntropyTables,
    name: str,
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
        opset: of the default ONNX domain.
        notes: remarks for people.
        report: called with a line for each file written.

    Raises:
        ExportError: a graph could not be exported.
    """
    tables.save(folder / ENTROPY_FILE)
    manifest = Manifest(
        name=name,
        model=codec.config.to_dict(),
        fingerprint=fingerprint(codec, tables),
        codec_id=codec_id(codec),
        quality_range=(1.0, float(codec.config.levels)),
        graphs=(),
        entropy_file=ENTROPY_FILE,
        entropy_sha256=_sha256(folder / ENTROPY_FILE),
        tools=_tools(),
        notes=notes,
    )
    manifest = _add_graphs(folder, manifest, codec_graphs(codec).values(), opset, report)
    write_manifest(folder, manifest)
    return manifest


def copy_bundle(folder: Path, bundle: Bundle) -> Manifest:
    """Copies a bundle's files, each checked against its hash, into an existing, empty folder.

    Raises:
        BundleError: a file is missing or damaged.
    """
    (folder / GRAPHS).mkdir()
    manifest = replace(bundle.manifest, tools=_tools())
    files = {stored.file: stored.sha256 for graph in manifest.graphs for stored in graph.files()}
    for file, sha256 in {**files, manifest.entropy_file: manifest.entropy_sha256}.items():
        (folder / file).write_bytes(bundle.read(file, sha256))
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
        manifest = _add_graphs(folder, manifest, task.specs().values(), opset, report)
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
        stored[spec.name] = StoredFile(file, _sha256(folder / file))
        report(f"{file}: {(folder / file).stat().st_size / 1e6:.1f} MB")
    graphs = [
        replace(graph, formats=graph.formats | {TORCHSCRIPT: stored[graph.name]})
        if graph.name in stored
        else graph
        for graph in manifest.graphs
    ]
    if without := [graph.name for graph in graphs if TORCHSCRIPT not in graph.formats]:
        report(f"notice: no TorchScript of {', '.join(without)}, whose checkpoint is not here")
    manifest = replace(manifest, graphs=tuple(graphs))
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest, checks: Sequence[Check] = ()) -> None:
    """Writes manifest.json, with more checks behind those it has."""
    validation = (*manifest.validation, *(check.to_dict() for check in checks))
    (folder / "manifest.json").write_text(replace(manifest, validation=validation).to_json(), "utf-8")


@contextmanager
def appearing(out: Path, force: bool) -> Iterator[Path]:
    """A fresh folder beside `out` that becomes `out` when the block ends well, and vanishes otherwise.

    What was at `out` is moved away first, and back if the fresh folder cannot take its name.

    Raises:
        ExportError: `out` exists and `force` is off, or is something other than a bundle.
    """
    check_target(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        _take_place(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _take_place(fresh: Path, out: Path) -> None:
    """Renames `fresh` to `out`; a bundle that is there is removed once the new one has its name."""
    old = fresh.with_name(f"{fresh.name}.old")
    if out.exists():
        out.rename(old)
    try:
        fresh.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_target(out: Path, force: bool) -> None:
    """Raises ExportError unless a bundle may be written at `out`."""
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists; pass --force to replace it")
    if not (out / "manifest.json").is_file():
        raise ExportError(f"{out} is no bundle, so --force does not replace it")


def _add_graphs(
    folder: Path, manifest: Manifest, specs: Iterable[GraphSpec], opset: int, report: Report
) -> Manifest:
    """Exports graphs; the manifest with them. All graphs of a bundle carry the same facts of its codec."""
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


def _write_graph(folder: Path, spec: GraphSpec, model: onnx.ModelProto, opset: int) -> GraphFile:
    file = f"{GRAPHS}/{spec.name}.onnx"
    onnx.checker.check_model(model)
    onnx.save(model, folder / file)
    return GraphFile(
        name=spec.name,
        file=file,
        sha256=_sha256(folder / file),
        precision="fp32",
        opset=opset,
        inputs=spec.inputs,
        outputs=spec.outputs,
        exact=spec.exact,
        parameters=sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type == t.FLOAT),
    )


def _tools() -> dict[str, str]:
    return {tool: version(tool) for tool in TOOLS} | {"python": platform.python_version()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
