"""The `polc-export` command, run as a process of its own."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
import torch
from commands import EXPORT_COMMAND as COMMAND

from polc_runtime import CheckpointError, ExportError


@pytest.fixture
def export(tmp_path):
    """Runs `polc-export` in `tmp_path`; every run must end without a traceback."""

    def run(*arguments):
        command = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def test_export_prints_a_marked_line_a_check(tiny_export):
    done, bundle = tiny_export
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    *checks, last = done.stdout.splitlines()
    assert len(checks) > 20 and all(line.startswith("ok   ") for line in checks)
    assert last.startswith(f"{bundle}: 13 graphs") and f"{len(checks)} checks passed" in last
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["name"] == "tiny" and manifest["notes"] == ["untrained"]
    assert [check["passed"] for check in manifest["validation"]] == [True] * len(checks)


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
        (["--stage1", "none.pth.tar"], "none.pth.tar: no such file"),
        (["--out", "x"], "pass --stage1 CKPT"),
        (["--bundle", "taken"], "a variant, or ask for fp16, TensorRT or a subset, to add to the bundle"),
        (["--bundle", "none", "--precision", "fp16"], "none is not a bundle: no such folder"),
        (["--bundle", "taken", "--format", "tensorrt", "--with-pixels"], "about tasks: pass "),
        (["--stage1", "bad.pth.tar"], "bad.pth.tar"),
        (["--stage1", "bad.pth.tar", "--photo", "bad.pth.tar"], "not an image"),
        (["--stage1", "bad.pth.tar", "--opset", "3"], "not in the range"),
        (["--stage1", "bad.pth.tar", "--out", "taken"], "taken exists; replace it with "),
        (
            ["--stage1", "bad.pth.tar", "--out", "taken", "--force"],
            "taken has no manifest.json",
        ),
        (["convert", "bad.pth.tar", "out.bin"], "written as .safetensors"),
        (["convert", "bad.pth.tar", "out.safetensors"], "bad.pth.tar"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, monkeypatch, tmp_path, arguments, said):
    from polc_export.cli import main

    (tmp_path / "bad.pth.tar").write_bytes(b"no checkpoint")
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert sorted(tmp_path.iterdir()) == before
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("polc-export: error: ") and said in line and printed.out == ""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_stopped_export_leaves_no_bundle(tiny_checkpoint, tmp_path, sent, code):
    out = tmp_path / "out.bundle"
    command = [*COMMAND, "--stage1", str(tiny_checkpoint), "--out", str(out), "--no-validate"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "entropy tables" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(sent)
    rest = process.stderr.read()
    assert process.wait() == code and "Traceback" not in rest
    assert not out.exists()
    if sent == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []


def test_other_weights_than_the_bundles_fail_the_validation(tiny_bundle, tiny_checkpoint):
    from polc import load_checkpoint
    from polc_export.checks import sample_photo
    from polc_export.validation.codec import validate
    from polc_runtime import Bundle

    model = load_checkpoint(tiny_checkpoint).codec
    with torch.no_grad():
        model.g_s[3].conv.bias[1] += 1e-3
    failed = [
        check.name
        for check in validate(Bundle.load(tiny_bundle), model, sample_photo()).values()
        if not check.passed
    ]
    assert failed == ["synthesis.image"]


def test_bundle_appears_only_when_the_work_ends_well(tmp_path):
    from polc_export.bundle_folder import atomic_folder

    out = tmp_path / "out.bundle"
    with pytest.raises(RuntimeError), atomic_folder(out, force=False) as folder:
        (folder / "manifest.json").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with atomic_folder(out, force=content == "second") as folder:
            (folder / "manifest.json").write_text(content)
        assert (out / "manifest.json").read_text() == content
    with pytest.raises(ExportError, match="replace it with force=True"), atomic_folder(out, force=False):
        pass


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


def test_conversion_keeps_the_tasks(tiny_stage2_checkpoint, tmp_path):
    from polc import load_checkpoint
    from polc_export.convert import convert_checkpoint

    copy = tmp_path / "copy.safetensors"
    facts = convert_checkpoint(tiny_stage2_checkpoint, copy)
    assert facts["tasks"] == list(load_checkpoint(copy).tasks) == ["convnext", "pspnet"]
    with pytest.raises(CheckpointError, match="holds the tasks convnext, pspnet; the official layout"):
        convert_checkpoint(tiny_stage2_checkpoint, tmp_path / "a.pth.tar", official_layout=True)
    assert list(tmp_path.iterdir()) == [copy]


def test_help_is_instant_and_has_examples(export):
    assert "polc-export --stage1 polc.pth.tar" in export().stdout
    assert "--official-layout" in export("convert", "--help").stdout
    assert export("--version").stdout.startswith("polc-export ")
    code = "import sys; from polc_export.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop(1).split(",")))
from polc_export.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""`polc-export` where the packages that the first argument lists are not installed."""


@pytest.fixture(scope="module")
def export_without():
    """Runs `polc-export` as if some packages were not there."""

    def run(packages, *arguments):
        command = [sys.executable, "-c", WITHOUT, packages, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def variants(export_without, tiny_bundle, tmp_path_factory):
    """The tiny bundle with fp16 graphs and TensorRT's files, made without PyTorch, and what was printed."""
    out = tmp_path_factory.mktemp("variants") / "all.bundle"
    wanted = ("--precision", "fp16", "--format", "tensorrt")
    return export_without("torch,polc", "--bundle", tiny_bundle, "--out", out, *wanted), out


def test_variants_are_made_from_a_bundle_without_pytorch(variants, tiny_bundle):
    done, out = variants
    assert done.returncode == 0, done.stderr
    *checks, last = done.stdout.splitlines()
    assert all(line.startswith("ok   ") for line in checks)
    for kind in ("fp16 ", "tensorrt ", "tensorrt-plugin ", "tensorrt fp16 ", "tensorrt-plugin fp16 "):
        assert any(line.startswith(f"ok   {kind}analysis.y: ") for line in checks)
    assert last.startswith(f"{out}: 16 graphs, ") and f"{len(checks)} checks passed" in last
    manifest, before = (json.loads((path / "manifest.json").read_text()) for path in (out, tiny_bundle))
    assert manifest["tools"].keys() >= {"torch", "onnx", "onnxruntime"}
    assert len(manifest["validation"]) == len(before["validation"]) + len(checks)


def test_a_bundle_with_all_variants_needs_neither_onnx_nor_pytorch(variants, tiny_bundle, export_without):
    absent = "torch,polc,onnx,onnxscript,matplotlib,onnxruntime"
    arguments = ("--precision", "fp16", "--format", "tensorrt")
    done = export_without(absent, "--bundle", variants[1], *arguments)
    assert done.returncode == 0 and "holds these formats already" in done.stderr, done.stderr
    done = export_without(absent, "--bundle", tiny_bundle, *arguments, "--force", "--no-validate")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "onnx derives these formats, and is not installed: pip install" in line
    done = export_without(absent, "--bundle", tiny_bundle, *arguments, "--force")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "name another (" in line


def test_commands_take_the_precision(variants, tiny_bundle, tmp_path, capsys):
    from PIL import Image

    from polc_runtime.cli import main as polc

    photo, files = tmp_path / "photo.png", {}
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)).save(photo)
    for precision in ("fp32", "fp16"):
        files[precision] = tmp_path / f"{precision}.polc"
        common = ("--bundle", str(variants[1]), "--precision", precision)
        assert polc(["compress", str(photo), "-o", str(files[precision]), "-v", *common]) == 0
        back = files[precision].with_suffix(".png")
        assert polc(["decompress", str(files[precision]), "-o", str(back), *common]) == 0
        assert Image.open(back).size == (70, 90)
    assert files["fp32"].read_bytes() != files["fp16"].read_bytes()
    assert polc(["verify", str(files["fp16"]), "--bundle", str(tiny_bundle)]) == 0, "fp32 decodes it too"
    capsys.readouterr()
    refused = ["compress", str(photo), "-o", str(tmp_path / "x"), "--bundle", str(tiny_bundle)]
    assert polc([*refused, "--precision", "fp16"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "analysis is there in fp32, not in fp16; export it in fp16" in line


@pytest.mark.slow
def test_variants_of_a_checkpoints_graphs_come_with_it(tiny_checkpoint, task_bundle, variants, tmp_path):
    """A task that is added to a bundle of variants gets them too; the others are not made again."""
    from polc_export.cli import main

    source = task_bundle.with_name("convnext.safetensors")
    out = tmp_path / "more.bundle"
    arguments = ["--bundle", variants[1], "--stage2", source, "--out", out, "--format", "tensorrt"]
    assert main([*map(str, arguments), "--precision", "fp16"]) == 0
    before, after = (json.loads((path / "manifest.json").read_text()) for path in (variants[1], out))
    added = [graph for graph in after["graphs"] if graph not in before["graphs"]]
    assert [(graph["name"], graph["precision"]) for graph in added] == [
        ("task_convnext", "fp32"),
        ("task_convnext", "fp16"),
    ]
    assert all(graph["formats"].keys() == {"tensorrt", "tensorrt-plugin"} for graph in added)
    names = {check["name"] for check in after["validation"]}
    assert "tensorrt-plugin fp16 task_convnext.logits" in names
