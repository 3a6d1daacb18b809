"""Graphs as TorchScript: right at sizes, qualities and batches that they were not traced with."""

import io
import json
import subprocess
import sys
import zipfile

import pytest
import torch
from formula import formula_codec, formula_task

from polc import preset
from polc.tasks.graphs import task_graphs
from polc_export.onnx.graph import EXAMPLE_SIZES
from polc_export.torchscript import FACTS_FILE, trace_graph, write_torchscript

GRAPHS = ["analysis", "hyper_analysis", "hyper_synthesis", *(f"context_{i}" for i in range(9)), "synthesis"]
CASES = [
    ({"batch": 1, "h": 5, "w": 3}, [1.0]),
    ({"batch": 3, "h": 4, "w": 6}, [8.0, 3.3, 5.75]),
    ({"batch": 1, "h": 1, "w": 1}, [7.0]),
]
"""Sizes by unit and the qualities of each sample; none is what graphs are traced with."""


@pytest.fixture(scope="module")
def codec():
    return formula_codec(preset("polc-tiny")).eval()


def inputs_of(spec, units, qualities, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for name, axes in spec.inputs.items():
        parts = [str(axis).rpartition("*") for axis in axes]
        shape = [int(factor or 1) * units[unit] if unit in units else int(unit) for factor, _, unit in parts]
        quality = torch.tensor(qualities)
        tensors.append(quality if name == "quality" else torch.randn(shape, generator=generator))
    return tensors


def outputs(module, tensors):
    with torch.inference_mode():
        found = module(*tensors)
    return found if isinstance(found, tuple) else (found,)


def check(spec, cases):
    """Traces a graph, saves and loads it, and compares it with its module."""
    archive = io.BytesIO()
    torch.jit.save(trace_graph(spec), archive)
    archive.seek(0)
    traced = torch.jit.load(archive)
    for units, qualities in cases:
        assert all(units[unit] != EXAMPLE_SIZES[unit] for unit in units)
        tensors = inputs_of(spec, units, qualities)
        for _ in range(3):  # torch optimises a graph anew in its first runs
            results = outputs(traced, tensors)
            for ours, theirs in zip(results, outputs(spec.module, tensors), strict=True):
                assert ours.shape == theirs.shape
                assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, theirs.std(correction=0))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_of_the_codec_is_right_at_other_sizes_qualities_and_batches(codec, graph):
    check(codec.graphs()[graph], CASES)


def test_every_graph_of_the_codec_is_tested(codec):
    assert list(codec.graphs()) == GRAPHS


@pytest.mark.parametrize("kind", ["task", "pixels"])
@pytest.mark.parametrize("family", ["tiny_convnext", "tiny_swin", "tiny_deit", "tiny_pspnet"])
def test_a_task_is_right_at_other_sizes_qualities_and_batches(codec, tiny_families, family, kind):
    model = formula_task(family, codec.config).eval()
    check(task_graphs("x", model)[f"{kind}_x"], CASES[:2])


def test_a_file_loads_and_runs_without_this_project_and_tells_its_interface(codec, tmp_path):
    spec = codec.graphs()["analysis"]
    write_torchscript(tmp_path / "analysis.ts", spec, {"codec_id": "ab"})
    tensors = inputs_of(spec, *CASES[0])
    torch.save([tensors, outputs(spec.module, tensors)], tmp_path / "case.pt")
    code = f"""
import sys, torch
facts = {{{FACTS_FILE!r}: ""}}
graph = torch.jit.load("analysis.ts", _extra_files=facts)
tensors, expected = torch.load("case.pt")
print(max((a - b).abs().max().item() for a, b in zip(graph(*tensors), expected)))
print(any(name.startswith("polc") for name in sys.modules))
print(facts[{FACTS_FILE!r}].decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    error, imported, facts = done.stdout.splitlines()
    assert float(error) < 1e-4 and imported == "False"
    assert json.loads(facts) == {
        "graph": "analysis", "codec_id": "ab",
        "inputs": {name: list(axes) for name, axes in spec.inputs.items()},
        "outputs": {name: list(axes) for name, axes in spec.outputs.items()},
    }  # fmt: skip


def test_a_file_names_no_path_of_the_machine_and_keeps_the_operators_version(codec, tmp_path):
    spec = codec.graphs()["hyper_synthesis"]
    write_torchscript(tmp_path / "graph.ts", spec, {})
    plain = io.BytesIO()
    torch.jit.save(trace_graph(spec), plain)
    with zipfile.ZipFile(tmp_path / "graph.ts") as archive, zipfile.ZipFile(plain) as other:
        for name in archive.namelist():
            data = archive.read(name)
            assert b"/polc/" not in data and b"site-packages" not in data, name
        version = archive.read("graph/.data/version")
        assert version == other.read("archive/.data/version")


def test_a_graph_that_has_been_traced_runs_as_before(codec):
    spec = codec.graphs()["hyper_synthesis"]
    trace_graph(spec)
    kernels = {module.kernel for module in codec.modules() if hasattr(module, "kernel")}
    assert kernels == {"auto"}
