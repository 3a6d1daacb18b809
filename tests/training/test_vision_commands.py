"""The vision commands as a user runs them: pixels, then stage 2, then an export of what they made."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from formula import formula_codec
from PIL import Image

from polc import codec_id, load_checkpoint
from polc.checkpoint import save_checkpoint
from polc.families.tinylic.presets import preset
from polc.weights import read_tensors
from polc_runtime.pictures.images import read_image
from polc_training.cli import main
from polc_training.validate import RealCoder

COMMON = ["--accelerator", "cpu", "-n", "0", "--quiet", "--max-steps", "2", "--validation-images", "2"]
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("vision")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(root / "thumbs.zip", "w") as archive:
        for split, count in (("train", 4), ("test", 1)):
            for label in CLASSES:
                for index in range(count):
                    with archive.open(f"thumbs/{split}/{label}/{index}.png", "w") as file:
                        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
    for split, count in (("train", 4), ("val", 2)):
        for folder, shape in (("images", (100, 140, 3)), ("masks", (100, 140))):
            (root / "streets" / split / folder).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 12 if folder == "masks" else 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(root / "streets" / split / folder / f"{index}.png")
    codec = formula_codec(preset("polc-tiny"))
    save_checkpoint(root / "codec.safetensors", codec, {"data": "formula"})
    return root


@pytest.fixture(scope="module")
def classified(data):
    """Runs pixels-cls, then stage2-cls, on the thumbnails."""
    source = ["-d", str(data / "thumbs.zip"), "--save-dir", str(data / "runs"), *COMMON]
    source += ["--family", "convnext_mini", "--augmentation", "padded-crop", "--patch_size", "192"]
    assert main(["pixels-cls", *source, "--preset", "polc-tiny", "--batch_size", "4"]) == 0
    weights = data / "runs/pixels-cls/last.safetensors"
    more = ["--pretrained", str(data / "codec.safetensors"), "--weights", str(weights), "--task", "pets"]
    assert main(["stage2-cls", *source, *more, "--batch_size", "2"]) == 0
    return data / "runs/stage2-cls/last.safetensors"


def test_stage2_keeps_codec_and_vision_model_and_names_the_classes(data, classified):
    checkpoint = load_checkpoint(classified)
    assert codec_id(checkpoint.codec) == codec_id(load_checkpoint(data / "codec.safetensors").codec)
    assert checkpoint.classes == {"pets": CLASSES}
    assert checkpoint.metadata["stage"] == "stage2-cls" and checkpoint.metadata["data"] == "formula"
    pixels, _ = read_tensors(data / "runs/pixels-cls/last.safetensors")
    task = checkpoint.tasks["pets"].model.state_dict()
    assert all(torch.equal(task[key], value) for key, value in pixels.items())


def test_validation_of_stage2_reports_accuracy_and_real_bytes_at_every_level(data, classified):
    records = [json.loads(line) for line in (classified.parent / "log.jsonl").read_text().splitlines()]
    levels = records[-1]["levels"]
    assert [level["quality"] for level in levels] == list(range(1, 9))
    assert all(0 <= level["top-1"] <= 1 and level["bpp"] > level["payload_bpp"] > 0 for level in levels)


def test_a_second_task_joins_the_first(data, classified):
    more = ["-d", str(data / "streets"), "--save-dir", str(data / "runs"), *COMMON, "--family", "pspnet_mini"]
    more += ["--patch_size", "128", "--batch_size", "2", "--ignore-label", "11"]
    assert main(["pixels-seg", *more, "--preset", "polc-tiny"]) == 0
    weights = str(data / "runs/pixels-seg/last.safetensors")
    assert main(["stage2-seg", *more, "--pretrained", str(classified), "--weights", weights]) == 0
    checkpoint = load_checkpoint(data / "runs/stage2-seg/last.safetensors")
    assert set(checkpoint.tasks) == {"pets", "pspnet_mini"}
    assert checkpoint.classes == {"pets": CLASSES}
    records = (data / "runs/stage2-seg/log.jsonl").read_text().splitlines()
    assert all(0 <= level["miou"] <= 1 for level in json.loads(records[-1])["levels"])


def test_validation_of_a_segmentation_counts_bits_over_the_pixels_of_the_image_itself(data, tmp_path):
    more = ["-d", str(data / "streets"), "--save-dir", str(tmp_path), *COMMON, "--family", "pspnet_mini"]
    more += ["--patch_size", "128", "--batch_size", "2", "--ignore-label", "11"]
    assert main(["stage2-seg", *more, "--pretrained", str(data / "codec.safetensors")]) == 0
    coder = RealCoder(load_checkpoint(data / "codec.safetensors").codec)
    images = [read_image(file).pixels for file in sorted((data / "streets/val/images").iterdir())]
    record = json.loads((tmp_path / "stage2-seg/log.jsonl").read_text().splitlines()[-1])
    expected = np.mean([coder.code(image, 8.0).bpp for image in images])
    assert record["levels"][-1]["bpp"] == pytest.approx(expected)


def test_masks_that_count_from_one_train_the_same_model(data, tmp_path):
    """The masks of `streets` hold 0..11, of which 11 is no class; here those are 1..11, and 0 is none."""
    shutil.copytree(data / "streets", tmp_path / "streets")
    for file in (tmp_path / "streets").glob("*/masks/*.png"):
        mask = np.asarray(Image.open(file))
        Image.fromarray(np.where(mask == 11, 0, mask + 1).astype(np.uint8)).save(file)
    trained = []
    for source, option in [(data, ["--ignore-label", "11"]), (tmp_path, ["--reduce-zero-label"])]:
        arguments = [
            "-d",
            str(source / "streets"),
            "--save-dir",
            str(tmp_path),
            "--tag",
            option[0].strip("-"),
        ]
        arguments += ["--family", "pspnet_mini", "--patch_size", "128", "--batch_size", "2"]
        assert main(["pixels-seg", *arguments, *COMMON, "--preset", "polc-tiny", *option]) == 0
        trained.append(read_tensors(tmp_path / arguments[5] / "last.safetensors")[0])
    assert all(torch.equal(value, trained[1][key]) for key, value in trained[0].items())


def test_stage2_without_a_codec_is_one_line(data, capsys):
    more = [
        "-d",
        str(data / "thumbs.zip"),
        "--save-dir",
        str(data / "none"),
        *COMMON,
        "--family",
        "convnext_mini",
    ]
    assert main(["stage2-cls", *more]) == 2
    assert "needs the codec's checkpoint: give it as pretrained" in capsys.readouterr().err


def test_eval_only_validates_and_trains_nothing(data, classified):
    run = data / "runs/stage2-cls"
    before = (run / "last.safetensors").read_bytes()
    source = ["-d", str(data / "thumbs.zip"), *COMMON, "--family", "convnext_mini", "--batch_size", "2"]
    source += ["--augmentation", "padded-crop", "--patch_size", "192", "--task", "pets"]
    source += ["--pretrained", str(data / "codec.safetensors"), "--checkpoint", str(run), "--eval_only"]
    source += ["--weights", str(data / "runs/pixels-cls/last.safetensors")]
    records = len((run / "log.jsonl").read_text().splitlines())
    assert main(["stage2-cls", *source]) == 0
    assert (run / "last.safetensors").read_bytes() == before
    assert len((run / "log.jsonl").read_text().splitlines()) == records + 1
