"""Predictions of the runtime: from latents, in batches, from pixels; preprocessing; maps of classes."""

import dataclasses
import io

import numpy as np
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from polc import load_checkpoint
from polc_runtime import Bundle, BundleError, Codec, ImageError, UsageError
from polc_runtime.backends.op_library import find_op_library
from polc_runtime.bundle import Preprocessing, SizeRule
from polc_runtime.errors import BitstreamError
from polc_runtime.limits import Limits
from polc_runtime.pictures.classmap import class_map, encode_map, overlay, palette, regions
from polc_runtime.pictures.preprocess import normalise, preprocess

TASKS = ("convnext", "scenes-1")


def picture(height, width, seed=0):
    """Smooth noise, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def codec(task_bundle):
    with Codec.load(task_bundle) as codec:
        yield codec


@pytest.fixture(scope="module")
def files(codec):
    """Five files on two grids, at mixed qualities."""
    sizes = [(100, 150), (230, 190), (192, 192), (1, 1), (256, 140)]
    return [codec.compress(picture(*size, n), 1 + 1.5 * n) for n, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def models(task_bundle):
    """The PyTorch models of the tasks."""
    stored = {"convnext": "convnext", "scenes-1": "pspnet"}
    return {
        task: load_checkpoint(task_bundle.with_name(f"{name}.safetensors")).tasks[name]
        for task, name in stored.items()
    }


def with_task(codec, name, **changes):
    """A codec whose manifest says something else of a task."""
    manifest = codec.bundle.manifest
    tasks = tuple(dataclasses.replace(t, **changes) if t.name == name else t for t in manifest.tasks)
    return Codec(Bundle(codec.bundle.path, dataclasses.replace(manifest, tasks=tasks)))


@pytest.mark.parametrize("task", TASKS)
def test_logits_are_the_graphs_and_the_models_own(codec, files, models, task_bundle, task):
    options, operators = ort.SessionOptions(), find_op_library()
    if operators.registers:
        options.register_custom_ops_library(str(operators.path))
    session = ort.InferenceSession(task_bundle / f"graphs/task_{task}.onnx", options)
    for data in files[:2]:
        header = codec.header(data)
        feeds = {"y_hat": codec.latent(data)[None], "quality": np.array([header.quality], np.float32)}
        (expected,) = session.run(["logits"], feeds)[0]
        with torch.inference_mode():
            (model,) = models[task](*map(torch.from_numpy, feeds.values())).numpy()
        if task == "scenes-1":
            padded = codec.plan.padded_size(header.height, header.width)
            assert expected.shape == (10, *(side + 1 for side in padded))
            expected, model = (each[:, : header.height, : header.width] for each in (expected, model))
        found = codec.infer(data, task)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found, model, atol=1e-4)


def test_a_segmentation_is_cut_to_the_image(codec, files):
    assert codec.infer(files[0], "scenes-1").shape == (10, 100, 150)
    assert codec.infer(files[3], "scenes-1").shape == (10, 1, 1)
    assert codec.infer(files[0], "convnext").shape == (10,)


class Spy:
    """Counts what a backend runs."""

    def __init__(self, backend):
        self.backend, self.runs = backend, []

    def run(self, graph, inputs):
        self.runs.append((graph, len(next(iter(inputs.values())))))
        return self.backend.run(graph, inputs)


def runs_of(codec, monkeypatch):
    spy = Spy(codec.backend)
    monkeypatch.setattr(codec.predictor, "backend", spy)
    monkeypatch.setattr(codec.latent_coder, "backend", spy)
    return spy.runs


@pytest.mark.parametrize("task", TASKS)
def test_many_files_run_in_batches_by_grid_and_answer_in_order(codec, files, monkeypatch, task):
    expected = [codec.infer(data, task) for data in files]
    runs = runs_of(codec, monkeypatch)
    found = codec.infer_many(files, task)
    assert [size for graph, size in runs if graph == f"task_{task}"] == [3, 2]
    for ours, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-5)
    runs.clear()
    codec.infer_many(files, task, batch_size=2)
    assert [size for graph, size in runs if graph == f"task_{task}"] == [2, 1, 2]
    assert codec.infer_many([], task) == []
    with pytest.raises(UsageError, match="batch_size must be at least 1, got 0"):
        codec.infer_many(files, task, batch_size=0)


def test_a_bad_file_among_many_is_named(codec, files):
    with pytest.raises(BitstreamError, match=r"^file 1 of 2 \(counted from 0\): not a .polc file"):
        codec.infer_many([files[0], b"nothing"], "convnext")


def test_a_latent_is_decoded_once_for_several_tasks_and_the_image(codec, files, monkeypatch):
    expected = [codec.infer(files[0], task) for task in TASKS]
    image = codec.decompress(files[0])
    runs = runs_of(codec, monkeypatch)
    decoded = codec.decode(files[0])
    for task, logits in zip(TASKS, expected, strict=True):
        np.testing.assert_array_equal(codec.infer_latent(decoded, task), logits)
    np.testing.assert_array_equal(codec.synthesise(decoded), image)
    assert [graph for graph, _ in runs].count("hyper_synthesis") == 1


def test_an_unknown_task_lists_the_ones_there_are(codec, files, tiny_bundle):
    for call in (codec.infer, codec.infer_pixels):
        with pytest.raises(UsageError, match=r"no task 'cats'; it has convnext, scenes-1"):
            call(files[0], "cats")
    with (
        Codec.load(tiny_bundle) as plain,
        pytest.raises(UsageError, match="has no tasks.*polc-export --bundle BUNDLE --stage2 CKPT"),
    ):
        plain.infer(files[0], "convnext")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (SizeRule(minimum=20), "at least 320x320 pixels"),
        (SizeRule(multiple=32), "multiples of 512"),
        (SizeRule(fixed=(16, 16)), "images of 256x256 pixels"),
    ],
)
def test_an_image_that_does_not_fit_says_which_size_is_needed(codec, files, rule, said):
    with with_task(codec, "convnext", sizes=rule) as strict:
        for call in (strict.infer, strict.infer_pixels):
            with pytest.raises(
                UsageError, match=r"has 150x100 pixels, padded to 192x192; preprocess"
            ) as error:
                call(files[0], "convnext")
            assert said in str(error.value)


def test_logits_that_the_manifest_does_not_describe_are_refused(codec, files):
    with (
        with_task(codec, "convnext", classes=("a", "b")) as wrong,
        pytest.raises(BundleError, match=r"task_convnext gives logits of the shape \[1, 10\].*\[1, 2\]"),
    ):
        wrong.infer(files[0], "convnext")


@pytest.mark.parametrize("task", TASKS)
def test_from_pixels_it_is_the_models_own_forward_on_the_decompressed_image(codec, files, models, task):
    for data in files[:2]:
        pixels = codec.decompress(data)
        height, width = pixels.shape[:2]
        full = codec.plan.padded_size(height, width)
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        image = torch.nn.functional.pad(image, (0, full[1] - width, 0, full[0] - height), mode="replicate")
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        with torch.inference_mode():
            (expected,) = models[task].forward_pixels(v2.functional.normalize(image, mean, std)).numpy()
        expected = expected[:, :height, :width] if task == "scenes-1" else expected
        np.testing.assert_allclose(codec.infer_pixels(data, task), expected, atol=1e-4)
        np.testing.assert_array_equal(codec.infer_image(pixels, task), codec.infer_pixels(data, task))


def test_without_a_pixel_graph_it_says_how_to_get_one(codec, files):
    with (
        with_task(codec, "convnext", pixels=False) as plain,
        pytest.raises(UsageError, match="no pixel graph of the task convnext: export it with_pixels=True"),
    ):
        plain.infer_pixels(files[0], "convnext")


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (301, 257), (100, 120), (256, 256), (64, 1000)])
@pytest.mark.parametrize(
    "steps", [Preprocessing(256, 224), Preprocessing(96, 96, "bilinear"), Preprocessing(64)]
)
def test_preprocessing_is_torchvisions(size, steps):
    image = Image.fromarray(picture(*size))
    mode = v2.InterpolationMode(steps.interpolation)
    expected = v2.functional.resize(image, steps.resize, mode)
    if steps.crop is not None:
        expected = v2.functional.center_crop(expected, steps.crop)
    np.testing.assert_array_equal(preprocess(picture(*size), steps), np.asarray(expected))


def test_an_image_smaller_than_the_crop_keeps_its_smaller_side():
    pixels = picture(50, 301)
    cut = preprocess(pixels, Preprocessing(resize=None, crop=100))
    np.testing.assert_array_equal(cut, pixels[:, 100:200])
    assert preprocess(pixels, Preprocessing(resize=None, crop=None)) is pixels


def test_a_thin_image_that_would_grow_beyond_the_limits_is_refused():
    with pytest.raises(ImageError, match=r"shorter side scaled to 256: an image of 1280000x256 is too large"):
        preprocess(np.zeros((1, 5000, 3), np.uint8), Preprocessing(resize=256, crop=256))
    with pytest.raises(ImageError, match="too many pixels"):
        preprocess(picture(10, 20), Preprocessing(resize=256), Limits(max_pixels=1000))


def test_normalising_is_by_channel():
    image = normalise(np.full((2, 3, 3), 255, np.uint8), Preprocessing(mean=(0, 0.5, 1), std=(1, 2, 4)))
    assert image.shape == (1, 3, 2, 3) and image.dtype == np.float32
    np.testing.assert_allclose(image[0, :, 0, 0], [1, 0.25, 0])


def test_a_class_map_is_a_palette_image_of_indexes():
    logits = np.random.default_rng(0).standard_normal((7, 40, 60)).astype(np.float32)
    classes = class_map(logits)
    image = Image.open(io.BytesIO(encode_map(classes)))
    assert image.mode == "P" and image.size == (60, 40)
    np.testing.assert_array_equal(np.asarray(image), logits.argmax(0))
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette()[classes])
    found = regions(classes)
    assert [region.index for region in found] == sorted(range(7), key=lambda i: -(classes == i).sum())
    assert sum(region.pixels for region in found) == 2400
    with pytest.raises(UsageError, match="at most 256 colours; there are 300 classes"):
        class_map(np.zeros((300, 1, 1), np.float32))


def test_no_two_classes_share_a_colour():
    assert len({tuple(colour) for colour in palette().tolist()}) == 256


@pytest.mark.parametrize("size", [(1, 1), (40, 600), (600, 40), (700, 500)])
@pytest.mark.parametrize("count", [1, 60])
def test_an_overlay_shows_the_colours_and_a_legend_at_every_size(size, count):
    classes = np.random.default_rng(0).integers(0, count, size).astype(np.uint8)
    image = np.zeros((*size, 3), np.uint8)
    names = tuple(f"class\n{index} with a rather long name that is cut" for index in range(count))
    drawn = overlay(image, classes, names)
    factor = -(-512 // max(size)) if max(size) < 512 else 1
    height, width = (side * factor for side in size)
    assert drawn.dtype == np.uint8 and drawn.shape[0] >= height and width + 100 < drawn.shape[1] < width + 600
    legend = drawn[:, width:].reshape(-1, 3)
    assert (legend == palette()[np.bincount(classes.ravel()).argmax()]).all(1).any()
    if count == 1:
        np.testing.assert_array_equal(
            drawn[:height, :width], np.broadcast_to(np.rint(palette()[0] / 2), (height, width, 3))
        )
