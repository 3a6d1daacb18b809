"""`polc-bench accuracy` on a small bundle with tasks, against a plain loop over the codec."""

import csv
import json
from importlib import metadata

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.cli.bench import main
from polc_runtime.pictures.preprocess import preprocess

LABELS = {"pet a/1.png": 0, "pet c/2.png": 2, "pet c/3.png": 2, "pet j/4.png": 9}
QUALITIES = (1, 7.5)


def picture(seed, height, width):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def bench(task_bundle, tmp_path, monkeypatch, capsys):
    """Runs `polc-bench accuracy` in `tmp_path` on the bundle with tasks; exit code, output, error lines.

    The folder has pictures of pets by class in `pets`, and scenes with masks in `scenes`.
    """
    for seed, name in enumerate(LABELS):
        put(tmp_path / "pets" / name, picture(seed, 60 + 20 * seed, 100))
    for seed, (height, width) in enumerate([(100, 150), (64, 80)]):
        put(tmp_path / f"scenes/images/{seed}.jpg", picture(seed, height, width))
        mask = np.random.default_rng(seed).integers(0, 10, (height, width)).astype(np.uint8)
        mask[:9] = 11
        put(tmp_path / f"scenes/masks/{seed}.png", Image.fromarray(mask))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLC_BUNDLE", str(task_bundle))

    def run(*arguments):
        code = main(["accuracy", *map(str, arguments), "--threads", "1"])
        printed = capsys.readouterr()
        return code, printed.out, printed.err.splitlines()

    return run


@pytest.fixture
def reference(monkeypatch):
    """Registers the PyTorch model as the package's metadata does once it is installed."""
    point = metadata.EntryPoint("torch", "polc.backends.torch:load_reference", "polc.reference")
    before = metadata.entry_points
    monkeypatch.setattr(
        metadata, "entry_points", lambda **by: [point] if by.get("group") == point.group else before(**by)
    )


def expected_top(bundle, folder):
    """Rate, top-1 and top-5 from latents and pixels at each quality, and of original pixels: a plain loop."""
    rates, hits, originals = np.zeros((2, 4)), np.zeros((2, 2, 4, 2)), np.zeros((4, 2))
    with Codec.load(bundle, threads=1) as codec:
        steps = codec.bundle.manifest.task("convnext").preprocessing
        for column, (name, label) in enumerate(LABELS.items()):
            pixels = preprocess(np.asarray(Image.open(folder / name)), steps)
            originals[column] = top(codec.infer_image(pixels, "convnext"), label)
            for row, quality in enumerate(QUALITIES):
                data = codec.compress(pixels, quality)
                rates[row, column] = 8 * len(data) / (256 * 256)
                hits[0, row, column] = top(codec.infer(data, "convnext"), label)
                hits[1, row, column] = top(codec.infer_pixels(data, "convnext"), label)
    return rates.mean(1), hits.mean(2), originals.mean(0)


def top(logits, label):
    order = np.argsort(-logits)
    return label in order[:1], label in order[:5]


def test_a_classification_is_that_of_a_plain_loop(bench, task_bundle, tmp_path):
    code, out, err = bench(
        "pets",
        "--task",
        "convnext",
        "--qualities",
        "1,7.5",
        "--with-pixels",
        "--json",
        "--csv",
        "pets.csv",
        "-o",
        "pets.json",
    )
    assert (code, err) == (0, [])
    document = json.loads(out)
    assert json.loads((tmp_path / "pets.json").read_text()) == document
    rates, hits, originals = expected_top(task_bundle, tmp_path / "pets")
    results = document["results"]
    assert results["quality"] == list(QUALITIES)
    assert results["bpp"] == pytest.approx(rates)
    for way, prefix in enumerate(("", "pixels-")):
        for index, figure in enumerate(("top-1", "top-5")):
            assert results[prefix + figure] == pytest.approx(hits[way, :, index])
    assert document["original"] == {"top-1": originals[0], "top-5": originals[1]}
    assert 0 < np.mean(hits[..., 1]) < 1, "nothing is told apart by this test"
    assert [image["image"] for image in document["per_image"]] == list(LABELS)
    assert {(image["width"], image["height"]) for image in document["per_image"]} == {(256, 256)}
    *rows, original = csv.DictReader((tmp_path / "pets.csv").open())
    assert [float(row["top-5"]) for row in rows] == results["top-5"]
    assert original["quality"] == "original" and float(original["top-5"]) == originals[1]


def test_a_segmentation_is_that_of_a_plain_loop(bench, task_bundle, tmp_path):
    code, out, err = bench(
        "scenes",
        "--task",
        "scenes-1",
        "--qualities",
        "1,7.5",
        "--ignore-label",
        "11",
        "--ignore-label",
        "3",
        "--json",
    )
    assert (code, err) == (0, [])
    document = json.loads(out)
    with Codec.load(task_bundle, threads=1) as codec:
        for index, quality in enumerate(QUALITIES):
            guesses, truths, rates = [], [], []
            for seed in range(2):
                pixels = np.asarray(Image.open(tmp_path / f"scenes/images/{seed}.jpg"))
                data = codec.compress(pixels, quality)
                rates.append(8 * len(data) / (pixels.shape[0] * pixels.shape[1]))
                guesses.append(codec.infer(data, "scenes-1").argmax(0).ravel())
                truths.append(np.asarray(Image.open(tmp_path / f"scenes/masks/{seed}.png")).ravel())
            guess, truth = np.concatenate(guesses), np.concatenate(truths)
            counted = ~np.isin(truth, (3, 11))
            ious = []
            for label in range(10):
                one, other = (guess == label) & counted, (truth == label) & counted
                ious.append(np.sum(one & other) / np.sum(one | other) if np.any(one | other) else None)
            found = document["iou"]["latent"]
            assert [found[name][index] for name in found] == [
                None if iou is None else pytest.approx(iou) for iou in ious
            ]
            assert document["results"]["miou"][index] == pytest.approx(
                np.mean([i for i in ious if i is not None])
            )
            assert document["results"]["pixel-accuracy"][index] == pytest.approx(
                np.mean((guess == truth)[counted])
            )
            assert document["results"]["bpp"][index] == pytest.approx(np.mean(rates))
    assert document["ignored"] == [3, 11] and document["original"] == {}


def test_masks_may_count_classes_from_one(bench, tmp_path):
    arguments = ("--task", "scenes-1", "--qualities", "4", "--json")
    _, out, _ = bench("scenes", *arguments, "--ignore-label", "11")
    for file in (tmp_path / "scenes/masks").iterdir():
        mask = np.asarray(Image.open(file))
        put(tmp_path / "scenes/masks" / file.name, Image.fromarray(np.where(mask == 11, 0, mask + 1)))
    code, again, err = bench("scenes", *arguments, "--reduce-zero-label")
    assert (code, err) == (0, [])
    before, after = json.loads(out), json.loads(again)
    assert after["ignored"] == [0, 255]
    for key in ("results", "iou", "per_image"):
        assert after[key] == before[key], key
    code, _, err = bench("scenes", *arguments)
    assert code == 2 and "set --reduce-zero-label" in err[0]


def test_the_pytorch_model_agrees(bench, reference, tiny_families, task_bundle):
    for task, stored in (("convnext", "convnext"), ("scenes-1", "pspnet")):
        folder = "pets" if stored == "convnext" else "scenes"
        code, out, err = bench(
            folder, "--task", task, "--qualities", "4", "--ignore-label", "11", "--limit", "2", "--json",
            "--checkpoint", task_bundle.with_name(f"{stored}.safetensors"),
        )  # fmt: skip
        assert code == 0, err
        results = json.loads(out)["results"]
        assert results["agreement"][0] >= 0.999 and 0 <= results["difference"][0] < 1e-3
        headline = "top-1" if stored == "convnext" else "miou"
        assert results[f"reference-{headline}"] == pytest.approx(results[headline], abs=1e-3)


def test_a_checkpoint_of_another_codec_is_refused(bench, reference, task_bundle, tiny_families, tmp_path):
    from polc import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint(task_bundle.with_name("convnext.safetensors"))
    codec_alone = tmp_path / "codec.safetensors"
    save_checkpoint(codec_alone, checkpoint.codec)
    code, _, err = bench("pets", "--task", "convnext", "--checkpoint", codec_alone)
    assert code == 2 and "has no task 'convnext'; it has no tasks; name a stage-2 checkpoint" in err[0]
    checkpoint.codec.gain.data += 1
    save_checkpoint(tmp_path / "other.safetensors", checkpoint.codec, tasks=checkpoint.tasks)
    code, _, err = bench("pets", "--task", "convnext", "--checkpoint", "other.safetensors")
    assert code == 2 and "other.safetensors: is another codec than the bundle's (codec_id " in err[0]


def test_without_pytorch_a_checkpoint_is_one_error(bench, monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda **by: [])
    code, _, err = bench("pets", "--task", "convnext", "--checkpoint", "x.safetensors")
    assert code == 2
    message = "the PyTorch model is not installed: pip install 'polc[export]'"
    assert err == [f"polc-bench: error: {message}"]


def test_tables_and_plots(bench, tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    code, out, err = bench(
        "pets",
        "--task",
        "convnext",
        "--qualities",
        "1,7.5",
        "--with-pixels",
        "--limit",
        "1",
        "--plot",
        "pets.png",
    )
    assert code == 0 and err == ["polc-bench: notice: 1 of 4 images, taken evenly"]
    lines = out.splitlines()
    assert "task convnext (tiny_convnext) of the bundle" in lines[0] and lines[0].endswith(", 1 image")
    assert " ".join(lines[1].split()) == "quality bpp bytes top-1 % top-5 % pixels top-1 % pixels top-5 %"
    assert [line.split()[0] for line in lines[2:4]] == ["1", "7.5"]
    assert lines[4] == "from original pixels"
    assert Image.open(tmp_path / "pets.png").format == "PNG"


def test_labels_from_a_file_give_the_same(bench, tmp_path):
    rows = [f"{name},{label}\n" for name, label in LABELS.items()]
    (tmp_path / "labels.csv").write_text("file,class\n" + "".join(rows))
    by_folder, by_file = (
        json.loads(bench("pets", "--task", "convnext", "--qualities", "4", "--json", *more)[1])
        for more in ([], ["--labels", "labels.csv"])
    )
    assert by_folder["results"] == by_file["results"]


def test_pictures_that_cannot_be_used_are_left_out_and_listed(bench, tmp_path):
    (tmp_path / "pets/pet c/3.png").write_bytes(b"no picture")
    code, out, err = bench("pets", "--task", "convnext", "--qualities", "4", "--json")
    document = json.loads(out)
    assert code == 2 and document["images"] == 3
    assert err == ["polc-bench: error: pets/pet c/3.png: not an image of a kind that can be read"]
    code, out, err = bench("scenes", "--task", "scenes-1", "--qualities", "4")
    assert (code, out) == (2, "")
    assert (
        len(err) == 3 and "masks/0.png: holds the label 11, but the labels of 10 classes are 0..9; " in err[0]
    )
    assert err[-1].startswith("polc-bench: error: no image could be measured, such as scenes/images/0.jpg: ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["pets", "--task", "absent"], "has no task 'absent'; it has convnext, scenes-1"),
        (["absent", "--task", "convnext"], "absent: is not a folder of images"),
        (["pets", "--task", "scenes-1"], "pets/masks: is not a folder of images"),
        (["scenes", "--task", "convnext"], "'images' is not a class of the task convnext (pet a, pet b, "),
        (["pets", "--task", "convnext", "--qualities", "0"], "quality must lie between 1 and 8, got 0"),
        (["pets", "--task", "convnext", "--plot", "x.bmp"], "plots are written as one of .png .svg .pdf"),
        (["pets"], "Missing option '--task'"),
    ],
)  # fmt: skip
def test_errors_are_one_line(bench, arguments, message):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    (line,) = err
    assert line.startswith("polc-bench: error: ") and message in line


def test_pixels_need_a_bundle_with_them(bench, tiny_bundle, tmp_path):
    code, _, err = bench("pets", "--task", "convnext", "--bundle", tiny_bundle)
    assert code == 2 and "has no tasks" in err[0]


def test_the_model_itself_predicts_on_the_backend_torch(
    bench, tiny_families, task_bundle, monkeypatch, tmp_path
):
    point = metadata.EntryPoint("torch", "polc.backends.torch:load_backend", "polc.backends")
    before = metadata.entry_points
    monkeypatch.setattr(
        metadata, "entry_points", lambda **by: [point] if by.get("group") == point.group else before(**by)
    )
    assert bench("pets", "--task", "convnext", "--qualities", "4", "-o", "ort.json")[0] == 0
    code, out, err = bench(
        "pets", "--task", "convnext", "--qualities", "4", "--backend", "torch", "--json",
        "--checkpoint", task_bundle.with_name("convnext.safetensors"), "-o", "torch.json",
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert document["codec"]["backend"]["name"] == "torch" and "agreement" not in document["results"]
    onnx = json.loads((tmp_path / "ort.json").read_text())
    assert document["results"]["top-5"] == pytest.approx(onnx["results"]["top-5"], abs=0.25)
