"""The `polc-export` command, run as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from PIL import Image

COMMAND = [sys.executable, "-c", "import sys; from polc_export.cli import main; sys.exit(main())"]


@pytest.fixture
def export(tmp_path):
    """Runs `polc-export` in `tmp_path`; every run must end without a traceback."""

    def run(*arguments):
        command = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_export_prints_a_marked_line_a_check_and_the_bundle_works(export, tiny_checkpoint, tmp_path):
    photo = tmp_path / "photo.png"
    Image.effect_noise((300, 200), 60).convert("RGB").save(photo)
    done = export("--stage1", tiny_checkpoint, "--out", "out.bundle", "--photo", photo, "--name", "small")
    assert done.returncode == 0, done.stderr
    *checks, last = done.stdout.splitlines()
    assert len(checks) > 20 and all(line.startswith("ok   ") for line in checks)
    assert last.startswith("out.bundle: 12 graphs") and f"{len(checks)} checks passed" in last
    manifest = json.loads((tmp_path / "out.bundle/manifest.json").read_text())
    assert manifest["name"] == "small" and len(manifest["validation"]) == len(checks)
    assert manifest["notes"] == ["untrained"]


def test_graphs_carry_their_facts_and_no_path_of_the_machine(tiny_bundle):
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    for graph in manifest["graphs"]:
        data = (tiny_bundle / graph["file"]).read_bytes()
        model = onnx.load_from_string(data)
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts["polc.graph"] == graph["name"] and facts["polc.fingerprint"] == manifest["fingerprint"]
        axes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert axes == graph["inputs"] | graph["outputs"]
        assert b"/home" not in data and b".py" not in data and b"site-packages" not in data


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage:"),
        (["--stage1", "none.pth.tar"], "none.pth.tar: no such file"),
        (["--out", "x"], "pass --stage1 CKPT"),
        (["--stage1", "bad.pth.tar"], "bad.pth.tar"),
        (["--stage1", "bad.pth.tar", "--photo", "bad.pth.tar"], "not an image"),
        (["--stage1", "bad.pth.tar", "--opset", "3"], "not in the range"),
        (["--stage1", "bad.pth.tar", "--out", "taken"], "taken exists; pass --force"),
        (["--stage1", "bad.pth.tar", "--out", "taken", "--force"], "taken is no bundle"),
        (["convert", "bad.pth.tar", "out.bin"], "written as .safetensors"),
        (["convert", "bad.pth.tar", "out.safetensors"], "bad.pth.tar"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(export, tmp_path, arguments, said):
    (tmp_path / "bad.pth.tar").write_bytes(b"no checkpoint")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.iterdir())
    done = export(*arguments)
    assert said in done.stdout + done.stderr
    assert sorted(tmp_path.iterdir()) == before
    if arguments:
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("polc-export: error: ")


def test_killed_export_leaves_no_bundle(tiny_checkpoint, tmp_path):
    out = tmp_path / "out.bundle"
    command = [*COMMAND, "--stage1", str(tiny_checkpoint), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "graphs/analysis.onnx" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()


def test_interrupted_export_cleans_up(tiny_checkpoint, tmp_path):
    out = tmp_path / "out.bundle"
    command = [*COMMAND, "--stage1", str(tiny_checkpoint), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "graphs/analysis.onnx" in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 130 and "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


def test_missed_tolerance_fails_the_export(tiny_checkpoint, tmp_path, monkeypatch):
    from polc_export import ExportOptions, export_bundle, validate
    from polc_runtime import ExportError

    monkeypatch.setattr(validate, "TOLERANCE", 1e-12)
    with pytest.raises(ExportError, match=r"not equal to the model: FAIL analysis.y"):
        export_bundle(tiny_checkpoint, tmp_path / "out.bundle", ExportOptions())
    assert list(tmp_path.iterdir()) == []


def test_converted_checkpoint_is_the_same_codec(export, tiny_checkpoint, tmp_path):
    done = export("convert", tiny_checkpoint, "official.pth.tar", "--official-layout", "--json")
    there = json.loads(done.stdout)
    done = export("convert", "official.pth.tar", "back.safetensors", "--json")
    back = json.loads(done.stdout)
    assert there["codec_id"] == back["codec_id"] and there["parameters"] == back["parameters"]
    from polc import load_checkpoint

    weights = [
        dict(load_checkpoint(p).codec.named_parameters())
        for p in (tiny_checkpoint, tmp_path / "back.safetensors")
    ]
    for key, value in weights[0].items():
        np.testing.assert_array_equal(value.detach(), weights[1][key].detach())


def test_help_has_examples(export):
    assert "polc-export --stage1 polc.pth.tar" in export("--help").stdout
    assert "--official-layout" in export("convert", "--help").stdout
    assert os.path.basename(export("--version").stdout.split()[0]) == "polc-export"
