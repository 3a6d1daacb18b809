"""Writes a bundle: every graph, the tables and the manifest, in a folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from polc import Checkpoint, codec_id, fingerprint
from polc.graphs import GraphSpec, codec_graphs
from polc_runtime.bundle import GraphFile, Manifest
from polc_runtime.coding.tables import EntropyTables
from polc_runtime.errors import ExportError

from .onnx_graph import DEFAULT_OPSET, export_graph

TOOLS = ("polc", "torch", "onnx", "onnxscript", "onnxruntime", "compressai", "numpy")
ENTROPY_FILE = "entropy.npz"
Report = Callable[[str], None]


def write_bundle(
    folder: Path,
    checkpoint: Checkpoint,
    tables: EntropyTables,
    name: str,
    opset: int = DEFAULT_OPSET,
    notes: tuple[str, ...] = (),
    report: Report = lambda line: None,
) -> Manifest:
    """Exports every graph of a checkpoint into an existing, empty folder.

    Args:
        folder: where to write.
        checkpoint: the model.
        tables: its coding tables.
        name: of the model, for people.
        opset: of the default ONNX domain.
        notes: remarks for people.
        report: called with a line for each file written.

    Raises:
        ExportError: a graph could not be exported.
    """
    codec = checkpoint.codec
    facts = {
        "polc.model": json.dumps(codec.config.to_dict(), sort_keys=True),
        "polc.fingerprint": fingerprint(codec, tables).hex(),
        "polc.codec_id": codec_id(codec).hex(),
    }
    (folder / "graphs").mkdir()
    graphs = []
    for spec in codec_graphs(codec).values():
        model = export_graph(spec, opset, {**facts, "polc.graph": spec.name})
        graph = _write_graph(folder, spec, model, opset)
        graphs.append(graph)
        size = (folder / graph.file).stat().st_size
        report(f"{graph.file}: {graph.parameters:,} parameters, {size / 1e6:.1f} MB")
    tables.save(folder / ENTROPY_FILE)
    manifest = Manifest(
        name=name,
        model=codec.config.to_dict(),
        fingerprint=bytes.fromhex(facts["polc.fingerprint"]),
        codec_id=bytes.fromhex(facts["polc.codec_id"]),
        quality_range=(1.0, float(codec.config.levels)),
        graphs=tuple(graphs),
        entropy_file=ENTROPY_FILE,
        entropy_sha256=_sha256(folder / ENTROPY_FILE),
        tools={tool: version(tool) for tool in TOOLS} | {"python": platform.python_version()},
        notes=notes,
    )
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest, validation: tuple[dict[str, Any], ...] = ()) -> None:
    """Writes manifest.json, with a validation report."""
    (folder / "manifest.json").write_text(replace(manifest, validation=validation).to_json())


@contextmanager
def appearing(out: Path, force: bool) -> Iterator[Path]:
    """A fresh folder beside `out` that becomes `out` when the block ends well, and vanishes otherwise.

    Raises:
        ExportError: `out` exists and `force` is off, or is something other than a bundle.
    """
    check_target(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_target(out: Path, force: bool) -> None:
    """Raises ExportError unless a bundle may be written at `out`."""
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists; pass --force to replace it")
    if not (out / "manifest.json").is_file():
        raise ExportError(f"{out} is no bundle, so --force does not replace it")


def _write_graph(folder: Path, spec: GraphSpec, model: onnx.ModelProto, opset: int) -> GraphFile:
    file = f"graphs/{spec.name}.onnx"
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
