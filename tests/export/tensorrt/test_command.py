"""`polc-export --format tensorrt` on a bundle: its files, then engines or why there are none."""

import shutil
import sys

import pytest

from polc_export.cli import main as export
from polc_runtime import Bundle


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bundle", "nano", "--max-shape", "1088x1920"],
        ["--stage1", "model.safetensors", "--format", "tensorrt", "--rebuild"],
        ["--bundle", "nano", "--format", "tensorrt", "--format", "torchscript", "--batch", "4"],
    ],
)
def test_options_of_engines_without_engines_are_refused(arguments, capsys):
    assert export(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("options of engines were given; they take --bundle BUNDLE --format tensorrt alone")


def test_a_bundle_keeps_its_opset(tmp_path, capsys):
    made = tmp_path / "made.bundle"
    assert export(["--bundle", "nano", "--format", "tensorrt", "--opset", "20", "--out", str(made)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--opset and --quality take a checkpoint" in line and not made.exists()


def test_a_wrong_shape_is_one_line(capsys):
    assert export(["--bundle", "nano", "--format", "tensorrt", "--min-shape", "100x100"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--min-shape 100x100: both sides must be multiples of 64 from 192 on" in line


def test_without_tensorrt_the_files_are_written_and_one_line_says_where_to_go_on(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    bundle = shutil.copytree(Bundle.load("nano").path, tmp_path / "nano")
    command = ["--bundle", str(bundle), "--format", "tensorrt"]
    assert export([*command, "--force", "--no-validate"]) == 0
    notice = (
        "notice: no engines were built: the package tensorrt is not installed: pip install 'polc[tensorrt]'"
    )
    assert notice in capsys.readouterr().err
    graphs = Bundle.load(bundle).manifest.graphs
    assert all("tensorrt" in graph.formats for graph in graphs)
    before = (bundle / "manifest.json").read_bytes()
    assert export(command) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert notice in last and last.endswith(
        f"polc-export --bundle {bundle} --format tensorrt --precision fp32"
    )
    assert (bundle / "manifest.json").read_bytes() == before
