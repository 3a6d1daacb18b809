"""Tasks into bundles: what is written and said, what is refused, and what the validation notices."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from formula import formula_codec, formula_task

from polc import Checkpoint, TaskModel, codec_id, load_checkpoint, preset, save_checkpoint
from polc_export import Stage2, TaskOptions, export_bundle
from polc_export.checks import TOLERANCE, Checks, sample_photo
from polc_export.cli import main
from polc_export.tasks import TaskExport, task_exports
from polc_export.validation.tasks import CASES, differing, fitting_cases, validate_tasks
from polc_runtime import Bundle, CheckpointError, ExportError
from polc_runtime.bundle import SizeRule
from polc_runtime.files import temporary


def manifest_of(bundle):
    return json.loads((bundle / "manifest.json").read_text())


def files_of(bundle):
    return {
        path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()
    }


def test_each_task_gets_a_marked_line_a_check(task_export):
    lines, bundle = task_export
    checks = [line for line in lines if line.startswith("ok   ")]
    for task in ("convnext", "scenes-1"):
        for graph in (f"task_{task}", f"pixels_{task}"):
            assert any(line.startswith(f"ok   {graph}.logits: ") for line in checks)
            assert (
                f"ok   {graph} top-1 agreement with PyTorch, ties aside: 100 %, least 100 % (4 cases)"
                in checks
            )
        assert any(line.startswith(f"ok   task_{task}.logits in a batch: ") for line in checks)
    assert lines[-1].startswith(f"{bundle}: 17 graphs") and "task convnext, task scenes-1" in lines[-1]
    recorded = {check["name"]: check for check in manifest_of(bundle)["validation"]}
    assert all(check["passed"] for check in recorded.values())
    assert {"analysis.y", "task_convnext.logits", "pixels_scenes-1.logits"} <= recorded.keys()
    assert recorded["task_scenes-1 top-1 agreement with PyTorch, ties aside"]["error"] == 0


def test_one_bundle_with_two_tasks_holds_the_codec_once(task_bundle, tiny_bundle):
    codec, both = files_of(tiny_bundle), files_of(task_bundle)
    del codec["manifest.json"]
    assert {name: both[name] for name in codec} == codec
    added = {f"graphs/{kind}_{task}.onnx" for kind in ("task", "pixels") for task in ("convnext", "scenes-1")}
    assert both.keys() - codec.keys() == added | {"manifest.json"}
    before, after = manifest_of(tiny_bundle), manifest_of(task_bundle)
    for key in ("name", "model", "fingerprint", "codec_id", "entropy", "notes"):
        assert before[key] == after[key]


def test_the_manifest_tells_what_each_task_needs(task_bundle):
    first, second = manifest_of(task_bundle)["tasks"]
    assert first.pop("classes") == [f"pet {letter}" for letter in "abcdefghij"]
    assert first == {
        "name": "convnext", "family": "tiny_convnext", "kind": "classification",
        "graph": "task_convnext", "pixels": "pixels_convnext",
        "sizes": {"multiple": 4, "minimum": 4, "fixed": None, "extra": 0},
        "preprocessing": {
            "resize": 292, "crop": 256, "interpolation": "bicubic",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        },
    }  # fmt: skip
    assert second["name"] == "scenes-1" and second["kind"] == "segmentation"
    assert second["classes"] == [f"class {index}" for index in range(10)]
    assert second["sizes"]["extra"] == 1 and second["preprocessing"]["crop"] is None
    for described in Bundle.load(task_bundle).describe()["tasks"]:
        graphs = [described["graph"], described["pixels"]]
        assert described["bytes"] == sum((task_bundle / f"graphs/{g}.onnx").stat().st_size for g in graphs)
        assert described["classes"] == 10 and described["parameters"] > 10_000


def test_task_graphs_carry_the_codecs_facts_and_no_path_of_the_machine(task_bundle):
    manifest = manifest_of(task_bundle)
    for entry in manifest["graphs"][12:]:
        data = (task_bundle / entry["file"]).read_bytes()
        model = onnx.load_from_string(data)
        facts = {item.key: item.value for item in model.metadata_props}
        assert facts["polc.graph"] == entry["name"] and facts["polc.codec_id"] == manifest["codec_id"]
        axes = {
            value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            for value in (*model.graph.input, *model.graph.output)
        }
        assert axes == entry["inputs"] | entry["outputs"] and not entry["exact"]
        assert b"/home" not in data and b".py" not in data and b"site-packages" not in data


def test_other_weights_than_the_bundles_fail_the_validation(task_bundle, monkeypatch):
    monkeypatch.setattr("polc_export.validation.tasks.CASES", CASES[:2])
    bundle = Bundle.load(task_bundle)
    checkpoint = load_checkpoint(task_bundle.with_name("pspnet.safetensors"))
    model = checkpoint.tasks["pspnet"]
    model.model.cls[4].bias.data[3] += 1e-2
    task = TaskExport(bundle.manifest.task("scenes-1"), model)
    checks = validate_tasks(bundle, checkpoint.codec, [task], sample_photo())
    failed = {name for name, check in checks.items() if not check.passed}
    assert {"task_scenes-1.logits", "pixels_scenes-1.logits"} <= failed
    assert "task_scenes-1.logits in a batch" not in failed
    with pytest.raises(ExportError, match="FAIL task_scenes-1.logits"):
        checks.require()


def test_a_backbone_that_is_another_codec_is_refused(tiny_bundle, tiny_families, tmp_path):
    config = preset("polc-tiny")
    path = tmp_path / "other.safetensors"
    codec = formula_codec(config, prefix="another:")
    save_checkpoint(path, codec, tasks={"x": formula_task("tiny_convnext", config)})
    before = files_of(tiny_bundle)
    with pytest.raises(CheckpointError, match=r"other.safetensors: its backbone is another codec .*codec_id"):
        export_bundle(bundle=tiny_bundle, out=tmp_path / "out", stage2=[Stage2(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["other.safetensors"] and files_of(
        tiny_bundle
    ) == before


def test_class_names_are_imagenets_for_a_thousand_classes(tiny_families):
    codec = formula_codec(preset("polc-tiny"))
    model = TaskModel.create("tiny_convnext", codec.config, classes=1000)
    (task,) = task_exports([Checkpoint(codec, tasks={"x": model})], codec_id(codec), [], TaskOptions())
    assert len(task.entry.classes) == 1000 and task.entry.classes[0].startswith("tench")
    assert list(task.specs()) == ["task_x"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bundle", "BUNDLE"], "a variant, or ask for fp16, TensorRT or a subset, to add to the bundle"),
        (["--bundle", "BUNDLE", "--stage2", "TASKS"], "exists; replace it with "),
        (
            ["--bundle", "BUNDLE", "--stage2", "CONVNEXT", "--out", "x"],
            "a task named convnext is there already",
        ),
        (["--stage2", "CONVNEXT", "--stage2", "CONVNEXT", "--out", "x"], "give this one another name: NAME="),
        (["--stage2", "x=TASKS"], "holds the tasks convnext, pspnet; leave out the name x"),
        (["--stage2", "CODEC", "--out", "x"], "holds no task"),
        (["--stage2", "none.pth"], "none.pth: no such file"),
        (["--stage2", "CONVNEXT", "--labels", "two.txt"], "2 labels are given, but the task convnext has 10"),
        (["--stage2", "CONVNEXT", "--labels", "none.txt"], "none.txt: there is no such file"),
        (["--stage2", "CONVNEXT", "--labels", "gap.txt"], "gap.txt: line 2 is not a class name"),
        (["--stage2", "CONVNEXT", "--labels", "y=two.txt"], "no task named 'y' is exported"),
        (["--stage2", "TASKS", "--labels", "two.txt"], "say which: NAME=two.txt"),
        (["--stage2", "TASKS", "--labels", "a=two.txt", "--labels", "a=two.txt"], "twice for one task"),
        (
            ["--stage2", "TASKS", "--stage2", "TASKS", "--family", "swin_tiny"],
            "a family is of one stage-2 checkpoint",
        ),
        (["--stage1", "CODEC", "--with-pixels"], "about tasks: pass "),
        (["--stage1", "CODEC", "--bundle", "BUNDLE", "--stage2", "TASKS"], "both bring a codec"),
        (["--bundle", "none", "--stage2", "TASKS"], "none is not a bundle"),
    ],
)
def test_a_wrong_use_is_one_line_and_leaves_nothing(
    arguments, said, capsys, monkeypatch, tmp_path, task_bundle, tiny_checkpoint, tiny_stage2_checkpoint
):
    (tmp_path / "two.txt").write_text("a\nb\n")
    (tmp_path / "gap.txt").write_text("a\n\nb\n")
    places = {
        "BUNDLE": task_bundle,
        "CODEC": tiny_checkpoint,
        "TASKS": tiny_stage2_checkpoint,
        "CONVNEXT": task_bundle.with_name("convnext.safetensors"),
    }
    for name, path in places.items():
        arguments = [argument.replace(name, str(path)) for argument in arguments]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("polc-export: error: ") and said in line and printed.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gap.txt", "two.txt"]
    assert not task_bundle.with_name("convnext.bundle").exists()


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_bundle_that_is_replaced_is_whole_at_every_moment(tmp_path, monkeypatch, in_one_step):
    from polc_export.bundle_folder import atomic_folder

    if not in_one_step:  # as where the system cannot exchange two names
        monkeypatch.setattr(temporary, "_exchanged", lambda *_: False)
    out = tmp_path / "out.bundle"
    for content in ("first", "second"):
        with atomic_folder(out, force=True) as folder:
            (folder / "manifest.json").write_text(content)
    assert (out / "manifest.json").read_text() == "second" and list(tmp_path.iterdir()) == [out]
    rename = Path.rename

    def refuse(self, target):
        if (self / "manifest.json").read_text() == "third":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(temporary, "_exchanged", lambda *_: False)
    with pytest.raises(OSError, match="no"), atomic_folder(out, force=True) as folder:
        (folder / "manifest.json").write_text("third")
    assert (out / "manifest.json").read_text() == "second" and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (SizeRule(), {(256, 256), (192, 320), (320, 192)}),
        (SizeRule(minimum=20), {(320, 320)}),
        (SizeRule(multiple=8), {(256, 256), (256, 384), (384, 256)}),
        (SizeRule(fixed=(16, 24)), {(256, 384)}),
    ],
)
def test_a_task_is_validated_on_sizes_that_it_takes(sizes, expected):
    cases = list(fitting_cases(sizes, formula_codec(preset("polc-tiny")).plan))
    assert {case[:2] for case in cases} == expected and cases[0][:2] == cases[1][:2]
    assert all(sizes.admits(height // 16, width // 16) for height, width, _ in cases)


def test_only_predictions_that_are_no_tie_count_as_differing():
    expected = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0 - TOLERANCE]], np.float32)
    assert differing(expected, expected) == 0
    assert differing(expected[:, [0, 2, 1]], expected) == 0
    assert differing(expected[:, [1, 0, 2]], expected) == 1.0
    assert np.isnan(differing(expected[:1], expected))
    checks = Checks()
    checks.add_agreement("a", 0.25)
    assert checks["a"].line() == "FAIL a: 75 %, least 100 % (1 cases)"
    assert not checks["a"].passed
