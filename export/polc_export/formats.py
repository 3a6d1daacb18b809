"""Formats of a bundle's graphs, derived from its ONNX files alone: float16, and what TensorRT reads.

Imports neither torch nor onnx before a file is derived: a bundle that has all formats needs none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polc_runtime.bundle import FORMATS, TENSORRT, TENSORRT_PLUGIN, GraphFile, Manifest, StoredFile
from polc_runtime.errors import ExportError

from .bundle_folder import GRAPHS, sha256, write_manifest
from .checks import Report
from .options import Formats

if TYPE_CHECKING:
    import onnx

FP16 = "fp16"
INSTALL = "pip install 'polc[export]'"
"""What brings the packages that derive formats."""


@dataclass(frozen=True)
class Added:
    """A file that was derived.

    Attributes:
        graph: name of the graph.
        precision: fp32 or fp16.
        format: `TENSORRT` or `TENSORRT_PLUGIN`; empty for plain ONNX.
    """

    graph: str
    precision: str
    format: str = ""


def complete(manifest: Manifest, wanted: Formats) -> bool:
    """Whether a bundle holds every format that is wanted."""
    return not (wanted.half and _without_half(manifest)) and not (
        wanted.tensorrt and any(TENSORRT not in graph.formats for graph in manifest.graphs)
    )


def add_formats(
    folder: Path, manifest: Manifest, wanted: Formats, report: Report = lambda line: None
) -> tuple[Manifest, tuple[Added, ...]]:
    """Writes the formats that a bundle's folder lacks; those that are there stay as they are.

    Args:
        folder: where the graphs and the manifest are.
        manifest: what it says.
        wanted: which formats.
        report: called with a line for each file written.

    Returns:
        The manifest with them, and what was added.

    Raises:
        ExportError: a graph has no such format, or the packages that make it are not installed.
    """
    if complete(manifest, wanted):
        return manifest, ()
    added: list[Added] = []
    graphs: list[GraphFile] = []
    for graph in manifest.graphs:
        graphs.append(graph)
        if wanted.half and graph.name in _without_half(manifest):
            graphs.append(_write_half(folder, graph, report))
            added.append(Added(graph.name, FP16))
    if wanted.tensorrt:
        for index, graph in enumerate(graphs):
            if TENSORRT not in graph.formats:
                graphs[index] = _write_tensorrt(folder, graph, report)
                added += [Added(graph.name, graph.precision, name) for name in _new(graph, graphs[index])]
    manifest = replace(manifest, graphs=tuple(graphs))
    write_manifest(folder, manifest)
    return manifest, tuple(added)


def _without_half(manifest: Manifest) -> list[str]:
    there = {graph.name for graph in manifest.graphs if graph.precision == FP16}
    return [graph.name for graph in manifest.graphs if not graph.exact and graph.name not in there]


def _new(before: GraphFile, after: GraphFile) -> Sequence[str]:
    return [name for name in after.formats if name not in before.formats]


def _write_half(folder: Path, graph: GraphFile, report: Report) -> GraphFile:
    model = _load(folder / graph.file)
    from .onnx.half import to_half

    stored = _write(folder, f"{GRAPHS}/{graph.name}.{FP16}.onnx", to_half(model), report)
    return replace(graph, precision=FP16, file=stored.file, sha256=stored.sha256, formats={})


def _write_tensorrt(folder: Path, graph: GraphFile, report: Report) -> GraphFile:
    model = _load(folder / graph.file)
    from .onnx.attention_function import has_attention
    from .tensorrt.graphs import inlined_graph, plugin_graph

    made = {TENSORRT: inlined_graph(model)}
    if has_attention(model):
        made[TENSORRT_PLUGIN] = plugin_graph(model)
    stem = graph.file.removesuffix(".onnx")
    stored = {name: _write(folder, f"{stem}{FORMATS[name]}", made[name], report) for name in made}
    return replace(graph, formats=graph.formats | stored)


def _load(path: Path) -> onnx.ModelProto:
    try:
        import onnx
    except ImportError as error:
        raise ExportError(f"{error.name} derives these formats, and is not installed: {INSTALL}") from None
    return onnx.load(path)


def _write(folder: Path, file: str, model: onnx.ModelProto, report: Report) -> StoredFile:
    import onnx

    onnx.checker.check_model(model)
    onnx.save(model, folder / file)
    report(f"{file}: {(folder / file).stat().st_size / 1e6:.1f} MB")
    return StoredFile(file, sha256(folder / file))
