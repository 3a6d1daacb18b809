"""Graphs as TorchScript files: traced by torch.jit, sizes left open, for libtorch without this project."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from polc.attention import attention_kernel
from polc.backends.evaluation import evaluating
from polc.graphs import GraphSpec
from polc_runtime.errors import ExportError, first_line

from .onnx.graph import example_inputs

FACTS_FILE = "polc.json"
"""Name of the extra file inside each archive: the graph's inputs and outputs, and facts of its codec."""

_DEBUG = ".debug_pkl"
_VERSIONS = ("version", ".data/version")
_IDENTITY = ".data/serialization_id"


def trace_graph(spec: GraphSpec) -> Any:
    """Traces a graph at one size; what comes out takes every batch, size and quality that the graph takes.

    It is a `torch.jit.ScriptModule` of plain torch operators, weights and all, that runs on the CPU.

    Args:
        spec: the graph.

    Raises:
        ExportError: torch.jit could not trace it.
    """
    try:
        with (
            evaluating(spec.module),
            attention_kernel("portable"),
            torch.no_grad(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # torch.jit is deprecated; sizes that it takes for constants are
            traced = torch.jit.trace(spec.module, example_inputs(spec), check_trace=False)
            return torch.jit.freeze(traced, optimize_numerics=False)
    except RuntimeError as error:
        raise ExportError(f"{spec.name} could not be traced: {first_line(error)}") from error


def write_torchscript(path: Path, spec: GraphSpec, facts: Mapping[str, Any]) -> None:
    """Traces a graph to a file that `torch.jit.load` reads.

    Args:
        path: of the file.
        spec: the graph.
        facts: what else to store in the archive's `FACTS_FILE`.

    Raises:
        ExportError: torch.jit could not trace it.
    """
    interface = {
        kind: {name: list(axes) for name, axes in values.items()}
        for kind, values in (("inputs", spec.inputs), ("outputs", spec.outputs))
    }
    text = json.dumps({"graph": spec.name, **interface, **facts}, sort_keys=True)
    archive = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(trace_graph(spec), archive, {FACTS_FILE: text})
    _copy_without_debug(archive, path)


def _copy_without_debug(archive: io.BytesIO, path: Path) -> None:
    """Copies an archive but for its debug records, which name this machine's files."""
    archive.seek(0)
    reader = torch._C.PyTorchFileReader(archive)
    writer = torch._C.PyTorchFileWriter(str(path))
    for name in reader.get_all_records():
        record = reader.get_record(name)
        if name in _VERSIONS:  # of the operators: an older one would bring back their old behaviour
            writer.set_min_version(int(record))
        elif name != _IDENTITY and not name.endswith(_DEBUG):
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
