"""`polc infer`, `polc compress --for-task` and `polc info` on a small bundle with tasks."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.cli import main


def save(path, height=100, width=150, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def polc(task_bundle, tmp_path, monkeypatch, capsys):
    """Runs `polc` in `tmp_path` on the bundle with tasks; gives exit code, output lines and error lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLC_BUNDLE", str(task_bundle))

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err.splitlines()

    return run


@pytest.fixture(scope="module")
def coded(task_bundle):
    """Two files: 150x100 and 256x256."""
    pixels = [np.asarray(Image.effect_noise(size, 60).convert("RGB")) for size in ((150, 100), (256, 256))]
    with Codec.load(task_bundle) as codec:
        return {name: codec.compress(image, 3.0) for name, image in zip("ab", pixels, strict=True)}


@pytest.fixture
def files(coded, tmp_path):
    for name, data in coded.items():
        (tmp_path / f"{name}.polc").write_bytes(data)


def report(polc, *arguments):
    code, out, err = polc(*arguments, "--json")
    assert code == 0 and err == []
    return json.loads("\n".join(out))


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_classification_prints_its_most_likely_classes(polc, files, coded, task_bundle):
    code, out, err = polc("infer", "a.polc", "b.polc", "--task", "convnext", "--top", "3")
    assert code == 0 and err == []
    with Codec.load(task_bundle) as codec:
        expected = []
        for name, data in coded.items():
            logits = softmax(codec.infer(data, "convnext"))
            expected += [f"{name}.polc", "  convnext"]
            expected += [
                f"    {100 * logits[i]:6.2f} %  pet {'abcdefghij'[i]}" for i in np.argsort(-logits)[:3]
            ]
    assert out == expected


def softmax(logits):
    import torch

    return torch.from_numpy(logits).double().softmax(0).numpy()


def test_json_tells_everything(polc, files, coded):
    document = report(polc, "infer", "a.polc", "--task", "convnext", "--task", "scenes-1", "--top", "99")
    assert document["command"] == "infer" and document["failed"] == 0
    (result,) = document["results"]
    assert (result["width"], result["height"], result["quality"]) == (150, 100, 3.0)
    assert result["bytes"] == len(coded["a"])
    classification, segmentation = result["predictions"]
    assert (classification["task"], classification["from"]) == ("convnext", "latent")
    top = classification["top"]
    assert len(top) == 10 and sum(entry["probability"] for entry in top) == pytest.approx(1)
    assert [entry["logit"] for entry in top] == sorted((entry["logit"] for entry in top), reverse=True)
    assert all(entry["name"] == f"pet {'abcdefghij'[entry['index']]}" for entry in top)
    classes = segmentation["classes"]
    assert sum(entry["pixels"] for entry in classes) == 150 * 100
    assert sum(entry["share"] for entry in classes) == pytest.approx(1)
    assert "map" not in segmentation


def test_a_segmentation_writes_a_palette_image_and_an_overlay(polc, files, tmp_path, coded, task_bundle):
    code, out, err = polc("infer", "a.polc", "--task", "scenes-1", "-o", "map.png")
    assert code == 0 and err == []
    assert out[:2] == ["a.polc", "  scenes-1 -> map.png, map_overlay.png"] and " %  class " in out[2]
    image = Image.open(tmp_path / "map.png")
    assert image.mode == "P" and image.size == (150, 100)
    with Codec.load(task_bundle) as codec:
        np.testing.assert_array_equal(np.asarray(image), codec.infer(coded["a"], "scenes-1").argmax(0))
    width, height = Image.open(tmp_path / "map_overlay.png").size
    assert height >= 400 and width > 600
    before = (tmp_path / "map.png").read_bytes()
    code, out, err = polc("infer", "a.polc", "--task", "scenes-1", "-o", "map.png")
    assert code == 2 and out == [] and "map.png: exists already" in err[0]
    assert polc("infer", "a.polc", "--task", "scenes-1", "-o", "map.png", "--force")[0] == 0
    assert (tmp_path / "map.png").read_bytes() == before


def test_several_files_write_into_a_folder(polc, files, tmp_path):
    code, *_ = polc("infer", ".", "--task", "scenes-1", "--task", "convnext", "-o", "maps")
    assert code == 0
    assert names(tmp_path / "maps") == ["a.png", "a_overlay.png", "b.png", "b_overlay.png"]


def test_maps_of_two_files_that_would_share_a_name_are_an_error(polc, files, tmp_path, coded):
    (tmp_path / "a_overlay.polc").write_bytes(coded["b"])
    code, out, err = polc("infer", "a.polc", "a_overlay.polc", "--task", "scenes-1", "-o", "maps")
    assert code == 2 and out == [] and not (tmp_path / "maps").exists()
    assert "would both be written to maps/a_overlay.png" in err[0]


def test_from_pixels_says_so(polc, files, coded, task_bundle):
    (result,) = report(polc, "infer", "b.polc", "--task", "convnext", "--via-pixels", "--top", "1")["results"]
    (prediction,) = result["predictions"]
    with Codec.load(task_bundle) as codec:
        logits = codec.infer_pixels(coded["b"], "convnext")
    assert prediction["from"] == "pixels" and prediction["top"][0]["index"] == logits.argmax()
    assert prediction["top"][0]["logit"] == pytest.approx(float(logits.max()))
    assert polc("infer", "b.polc", "--task", "convnext", "--via-pixels")[1][1] == "  convnext, from pixels"


def test_bad_files_do_not_stop_the_good_ones(polc, files, tmp_path):
    (tmp_path / "aa.polc").write_bytes(b"nothing")
    code, out, err = polc("infer", "a.polc", "aa.polc", "b.polc", "none.polc", "--task", "convnext")
    assert code == 2 and [line for line in out if not line.startswith(" ")] == ["a.polc", "b.polc"]
    assert [line.split(": ")[2] for line in err] == ["aa.polc", "none.polc"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.polc"], "Missing option '--task'"),
        (["a.polc", "--task", "cats"], "no task 'cats'; it has convnext, scenes-1"),
        (["a.polc", "--task", "convnext", "--top", "0"], "--top"),
        (["a.polc", "--task", "convnext", "-o", "x.png"], "-o needs a segmentation task; none of the named"),
        (["a.polc", "--task", "scenes-1", "-o", "x.jpg"], "x.jpg: maps of classes are written as .png"),
        (["a.polc", "--task", "scenes-1", "-o", "-"], "predictions are printed on standard output"),
        (["a.polc", "--task", "scenes-1", "-o", "no/x.png"], "the folder no does not exist"),
        (["--task", "convnext"], "FILES"),
    ],
)
def test_a_wrong_use_is_one_line(polc, files, tmp_path, arguments, said):
    code, out, err = polc("infer", *arguments)
    assert code == 2 and out == [] and names(tmp_path) == ["a.polc", "b.polc"]
    (line,) = err
    assert line.startswith("polc: error: ") and said in line


def test_a_bundle_without_tasks_says_so(polc, files, tiny_bundle):
    code, _, err = polc("infer", "a.polc", "--task", "convnext", "--bundle", tiny_bundle)
    assert code == 2 and "has no tasks" in err[0]


def test_standard_input_is_predicted_from(coded, task_bundle):
    command = [
        sys.executable,
        "-m",
        "polc_runtime",
        "infer",
        "-",
        "--task",
        "convnext",
        "--bundle",
        task_bundle,
    ]
    done = subprocess.run(command, input=coded["a"], capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode().splitlines()[:2] == ["-", "  convnext"]


def test_compressing_for_a_task_scales_and_cuts_first(polc, tmp_path, task_bundle):
    save(tmp_path / "wide.png", 300, 500)
    save(tmp_path / "small.png", 20, 50)
    code, out, err = polc("compress", "wide.png", "small.png", "-o", "out", "--for-task", "convnext")
    assert code == 0 and out == []
    assert err == [
        "polc: notice: wide.png: scaled and cut for the task convnext: from 500x300 to 256x256",
        "polc: notice: small.png: scaled and cut for the task convnext: from 50x20 to 256x256",
    ]
    image = Image.open(tmp_path / "wide.png").resize((486, 292), Image.Resampling.BICUBIC)
    with Codec.load(task_bundle) as codec:
        expected = codec.compress(np.asarray(image.crop((115, 18, 371, 274))), 4.0)
    assert (tmp_path / "out/wide.polc").read_bytes() == expected
    (facts,) = report(polc, "info", "out/small.polc")["results"]
    assert (facts["width"], facts["height"]) == (256, 256)


def test_compressing_for_a_task_that_asks_for_nothing_changes_nothing(polc, tmp_path):
    save(tmp_path / "a.png")
    assert polc("compress", "a.png", "-o", "a.polc", "--for-task", "scenes-1") == (0, [], [])
    assert polc("compress", "a.png", "-o", "b.polc") == (0, [], [])
    assert (tmp_path / "a.polc").read_bytes() == (tmp_path / "b.polc").read_bytes()


def test_compressing_for_an_unknown_task_or_a_thread_of_pixels_is_one_line(polc, tmp_path):
    save(tmp_path / "a.png")
    Image.new("RGB", (5000, 1)).save(tmp_path / "thread.png")
    code, _, err = polc("compress", "a.png", "-o", "a.polc", "--for-task", "cats")
    assert code == 2 and "it has convnext, scenes-1" in err[0]
    code, _, err = polc("compress", "thread.png", "-o", "t.polc", "--for-task", "convnext")
    assert code == 2 and err == [
        "polc: error: thread.png: with its shorter side scaled to 292: an image of 1460000x292 is too large: "
        "a side may have 65535 pixels (raise it by $POLC_MAX_SIDE)"
    ]
    assert names(tmp_path) == ["a.png", "thread.png"]


def test_info_shows_a_bundles_tasks(polc, task_bundle):
    code, out, _ = polc("info", task_bundle)
    assert code == 0
    text = [" ".join(line.split()) for line in out]
    about = "10 from 64, multiples of 64"
    (line,) = [line for line in text if line.startswith("convnext tiny_convnext classification")]
    assert f"{about} resize 292, crop 256 189,748" in line
    assert any(line.startswith(f"scenes-1 tiny_pspnet segmentation {about} as they are") for line in text)
    (facts,) = report(polc, "info", task_bundle)["results"]
    assert [task["name"] for task in facts["tasks"]] == ["convnext", "scenes-1"]


def test_an_image_stream_is_no_polc_file(polc, tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    (tmp_path / "x.polc").write_bytes(stream.getvalue())
    code, out, err = polc("infer", "x.polc", "--task", "convnext")
    assert code == 2 and out == [] and "not a .polc file" in err[0]
