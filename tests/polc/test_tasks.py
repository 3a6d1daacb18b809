"""Task models: against the golden vectors, against timm's own forward, and as graphs."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from formula import formula_codec, formula_task
from PIL import Image
from torch import nn
from torch.export import Dim
from torch.nn import functional as F

from polc import CheckpointError, TaskModel, class_names, load_checkpoint, preset, set_attention_kernel
from polc.backends.torch import TorchBackend
from polc.families.tinylic.keymap import to_official
from polc.tasks import FAMILIES, SizeRule, infer_family, pretrained
from polc.tasks.graphs import task_graphs
from polc.tasks.resample import average_pool, bicubic_weights, resample_grid
from polc_runtime.errors import BackendUnavailable

TIMM_FAMILIES = ("tiny_convnext", "tiny_swin", "tiny_deit")
TOLERANCE = 1e-3
GOLDEN_IMAGES = {
    "cls_convnext_tiny": "kodim05",
    "cls_deit_small": "kodim05",
    "cls_deit_small_static256": "kodim05b",
    "seg_pspnet50": "kodim05b",
}


@pytest.fixture(scope="module")
def tiny_tasks(tiny_families):
    return {name: formula_task(name, preset("polc-tiny")) for name in tiny_families}


def latent(height, width, batch=2):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(batch, 32, height, width, generator=generator)


def image(height, width, batch=2):
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(batch, 3, height, width, generator=generator)


class StemAsAdapter(nn.Module):
    """Gives what the vision model's own stem makes of a picture, as an adapter's map [B,C,H,W]."""

    def __init__(self, stem, picture):
        super().__init__()
        self.value = stem(picture)

    def forward(self, y_hat, quality):
        return self.value if self.value.shape[1] == 32 else self.value.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", TIMM_FAMILIES)
@pytest.mark.parametrize("size", [(192, 192), (192, 256), (320, 64)])
@torch.no_grad()
def test_behind_the_original_stem_the_logits_are_timms_own(tiny_families, name, size):
    task = formula_task(name, preset("polc-tiny"))
    picture = image(*size)
    expected = task.model(picture)
    assert expected.std() > 0.1
    torch.testing.assert_close(task.forward_pixels(picture), expected, atol=1e-5, rtol=1e-5)
    stem = task.model.stem if hasattr(task.model, "stem") else task.model.patch_embed
    task.adapter = StemAsAdapter(stem, picture)
    torch.testing.assert_close(task(latent(12, 12), torch.ones(2)), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_swin_shifts_its_last_stage_as_the_model_was_built_to(tiny_families):
    entry = tiny_families["tiny_swin"]
    for side in (224, 256):
        model = entry.parts.builder(
            entry.source, False, 10, None, {**entry.arguments, "img_size": side}
        ).eval()
        stages = entry.parts.stages(model, entry.parts.stem(model, image(256, 256)))
        torch.testing.assert_close(
            entry.parts.head(model, stages[-1]), model(image(256, 256)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("name", ["tiny_convnext", "tiny_swin", "tiny_deit", "tiny_pspnet"])
@torch.no_grad()
def test_student_and_teacher_compare_features_of_the_same_shape(tiny_tasks, name):
    task = tiny_tasks[name]
    student = task.features(latent(8, 12), torch.tensor([1.0, 5.5]))
    teacher = task.pixel_features(image(128, 192))
    assert [f.shape for f in student] == [f.shape for f in teacher]
    torch.testing.assert_close(task.head(student), task(latent(8, 12), torch.tensor([1.0, 5.5])))


@torch.no_grad()
def test_segmentation_gives_one_more_row_and_column_and_an_auxiliary_head(tiny_tasks):
    task = tiny_tasks["tiny_pspnet"]
    features = task.features(latent(8, 12), torch.ones(2))
    assert task.head(features).shape == (2, 10, 129, 193)
    assert task.auxiliary(features).shape == (2, 10, 129, 193)
    assert tiny_tasks["tiny_convnext"].auxiliary(features) is None


@pytest.mark.parametrize("old", [14, 16])
@pytest.mark.parametrize("new", [7, 12, 14, 16, 20, 33, 64])
def test_bicubic_weights_are_torchs_antialiased_resampling(old, new):
    identity = torch.eye(old, dtype=torch.float64)[None, None]
    expected = F.interpolate(identity, (new, old), mode="bicubic", antialias=True)[0, 0]
    assert (bicubic_weights(old, torch.arange(new)) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(14, 14), (12, 16), (9, 40)])
def test_position_embeddings_are_resampled_as_timm_does(size):
    from timm.layers import resample_abs_pos_embed

    positions = torch.randn(1, 197, 8, generator=torch.Generator().manual_seed(1))
    expected = resample_abs_pos_embed(positions, list(size))[0, 1:]
    grid = positions[0, 1:].unflatten(0, (14, 14))
    found = resample_grid(grid, torch.zeros(1, *size, 8)).flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    if size == (14, 14):
        assert torch.equal(found, positions[0, 1:])


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(33, 33), (25, 41), (6, 7), (5, 3)])
def test_pooling_is_torchs_adaptive_average(bins, size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(average_pool(x, bins), F.adaptive_avg_pool2d(x, bins), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_entry_builds_fits_its_adapter_and_is_told_by_its_weights(name):
    with torch.device("meta"):
        task = TaskModel.create(name, preset("polc-base"))
    official = to_official(task.state_dict())
    model = {k.removeprefix("task_model."): v for k, v in official.items() if k.startswith("task_model.")}
    assert infer_family(model).name == name
    assert task.classes == task.family.classes
    stem = model[task.family.parts.stem_weight]
    assert stem.shape[0] == task.family.channels == task.adapter.block.norm1.weight.shape[0]


def test_pspnet_has_the_official_names_and_shapes(golden):
    official = json.loads((golden / "state_keys.json").read_text())["SegWrapper_pspnet50"]
    expected = {k: v["shape"] for k, v in official.items() if k.startswith("task_model.")}
    with torch.device("meta"):
        model = TaskModel.create("pspnet50", preset("polc-base")).model
    assert {f"task_model.{k}": list(v.shape) for k, v in model.state_dict().items()} == expected


def test_imagenet_names_are_in_the_order_of_the_logits():
    names = class_names(FAMILIES["swin_tiny"], 1000)
    assert len(names) == 1000 and names[0].startswith("tench") and names[999].startswith("toilet tissue")
    assert class_names(FAMILIES["swin_tiny"], 10) is None
    assert class_names(FAMILIES["pspnet50"], 1000) is None


def test_an_unknown_family_lists_the_ones_there_are():
    with pytest.raises(CheckpointError, match="'resnet50'; there are convnext_tiny, .*, pspnet101"):
        TaskModel.create("resnet50", preset("polc-tiny"))


def test_timm_weights_without_a_connection_are_one_clear_error(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(
        CheckpointError, match="could not download timm's weights for deit_small_patch16_224"
    ) as error:
        TaskModel.create("deit_small", preset("polc-tiny"), weights="timm")
    assert "\n" not in str(error.value) and before == constants.HF_HUB_OFFLINE


def test_an_unreachable_hub_is_noticed_at_once():
    assert not pretrained._reachable("http://127.0.0.1:9")


def test_timm_has_no_weights_for_pspnet():
    with pytest.raises(CheckpointError, match="timm has no weights for pspnet50; give the path"):
        TaskModel.create("pspnet50", preset("polc-tiny"), weights="timm")


def test_weights_of_a_vision_model_alone_load_from_a_file(tiny_families, tiny_tasks, tmp_path):
    path = tmp_path / "vision.pth"
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in tiny_tasks["tiny_pspnet"].model.state_dict().items()}},
        path,
    )
    loaded = TaskModel.create("tiny_pspnet", preset("polc-tiny"), weights=str(path))
    assert torch.equal(loaded.model.cls[4].weight, tiny_tasks["tiny_pspnet"].model.cls[4].weight)
    with pytest.raises(CheckpointError, match="holds no tiny_convnext: missing weights: head.fc.bias"):
        TaskModel.create("tiny_convnext", preset("polc-tiny"), weights=str(path))


def test_a_missing_timm_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(BackendUnavailable, match="pip install timm"):
        TaskModel.create("deit_small", preset("polc-tiny"))


def example(axes, batch, h, w):
    units = {"batch": batch, "h": h, "w": w}
    sizes = []
    for axis in axes:
        factor, _, unit = str(axis).rpartition("*")
        sizes.append(int(factor or 1) * units[unit] if isinstance(axis, str) else axis)
    return torch.rand(sizes, generator=torch.Generator().manual_seed(h)) + (len(axes) == 1)


def traced(spec):
    """The graph through torch.export, every named axis dynamic."""
    units = {name: Dim(name, max=1 << 12) for name in ("batch", "h", "w")}
    dynamic = []
    for axes in spec.inputs.values():
        named = {i: axis.rpartition("*") for i, axis in enumerate(axes) if isinstance(axis, str)}
        dynamic.append({i: int(f) * units[u] if f else units[u] for i, (f, _, u) in named.items()})
    inputs = tuple(example(axes, 2, 3, 4) for axes in spec.inputs.values())
    set_attention_kernel(spec.module, "operator")
    try:
        return torch.export.export(spec.module, inputs, dynamic_shapes=(tuple(dynamic),)).module()
    finally:
        set_attention_kernel(spec.module, "tiled")


@pytest.mark.parametrize(
    "name",
    [
        "tiny_convnext",
        "tiny_deit",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("tiny_pspnet", "tiny_swin")),
    ],
)
@torch.no_grad()
def test_graphs_trace_with_dynamic_axes(tiny_tasks, name):
    for spec in task_graphs(name, tiny_tasks[name]).values():
        graph = traced(spec)
        for batch, h, w in ((1, 3, 3), (3, 5, 4)):
            inputs = [example(axes, batch, h, w) for axes in spec.inputs.values()]
            expected = spec.module(*inputs)
            torch.testing.assert_close(graph(*inputs), expected, atol=1e-5, rtol=1e-4)
            height, width = 64 * h + 1, 64 * w + 1
            assert expected.shape == ((batch, 10, height, width) if "pspnet" in name else (batch, 10))


def test_graphs_say_their_axes(tiny_tasks):
    graphs = task_graphs("scenes", tiny_tasks["tiny_pspnet"])
    assert list(graphs) == ["task_scenes", "pixels_scenes"]
    task, pixels = graphs.values()
    assert task.inputs == {"y_hat": ("batch", 32, "4*h", "4*w"), "quality": ("batch",)}
    assert pixels.inputs == {"image": ("batch", 3, "64*h", "64*w")}
    assert task.outputs == pixels.outputs == {"logits": ("batch", 10, "64*h+1", "64*w+1")}
    graphs = task_graphs("birds", tiny_tasks["tiny_deit"])
    assert graphs["task_birds"].outputs == {"logits": ("batch", 10)}
    assert not any(spec.exact for spec in graphs.values())


def test_a_fixed_size_stands_in_the_axes_as_numbers(tiny_tasks):
    task = copy.copy(tiny_tasks["tiny_pspnet"])
    task.family = dataclasses.replace(task.family, sizes=SizeRule(fixed=(16, 12), extra=1))
    of_latent, of_pixels = task_graphs("scenes", task).values()
    assert of_latent.inputs["y_hat"] == ("batch", 32, 16, 12)
    assert of_pixels.inputs["image"] == ("batch", 3, 256, 192)
    assert of_latent.outputs["logits"] == ("batch", 10, 257, 193)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "-x", "x" * 65])
def test_a_name_that_fits_no_graph_is_refused(tiny_tasks, name):
    with pytest.raises(CheckpointError, match="is not a name for a task"):
        task_graphs(name, tiny_tasks["tiny_deit"])


@torch.no_grad()
def test_the_torch_backend_runs_task_graphs(tiny_tasks):
    task = tiny_tasks["tiny_convnext"]
    backend = TorchBackend(formula_codec(preset("polc-tiny")), task_graphs("birds", task))
    y_hat, quality = latent(12, 16), torch.tensor([1.0, 7.5])
    found = backend.run("task_birds", {"y_hat": y_hat.numpy(), "quality": quality.numpy()})
    np.testing.assert_allclose(found["logits"], task(y_hat, quality).numpy(), atol=1e-6)
    found = backend.run("pixels_birds", {"image": image(192, 64).numpy()})
    np.testing.assert_allclose(found["logits"], task.forward_pixels(image(192, 64)).numpy(), atol=1e-6)


class Golden:
    """A golden file; remembers the largest error of each kind of value."""

    def __init__(self, values):
        self.values, self.errors = values, {}

    def check(self, kind, found, key):
        expected = self.values[key]
        assert np.shape(found) == expected.shape
        error = float(np.abs(np.asarray(found, np.float64) - expected).max())
        self.errors[kind] = max(self.errors.get(kind, 0.0), error)

    def check_features(self, features, prefix, suffix):
        for index, feature in enumerate(features):
            self.check("features", [feature.mean(), feature.std()], f"{prefix}featstat{index}{suffix}")

    def check_argmax(self, logits, key):
        """Every pixel that is classified otherwise must be a tie within the tolerance."""
        expected = torch.from_numpy(self.values[key].astype(np.int64))
        chosen = logits.gather(1, expected[:, None])[:, 0]
        assert (logits.max(1).values - chosen).max() < TOLERANCE
        differing = int((logits.argmax(1) != expected).sum())
        self.errors["argmax pixels"] = max(self.errors.get("argmax pixels", 0), differing)


def normalised(path, preprocessing):
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    return ((pixels - mean) / std)[None]


def check_student(task, golden, quality):
    suffix = f"_q{quality:g}"
    y_hat = torch.from_numpy(golden.values["y_hat"])
    features = task.features(y_hat, torch.tensor([quality]))
    golden.check_features(features, "", suffix)
    if f"adapter{suffix}" in golden.values:
        expected = golden.values[f"adapter{suffix}"]
        found = features[0].flatten(1, 2) if expected.ndim == 3 else features[0][:, : expected.shape[1]]
        golden.check("adapter", found, f"adapter{suffix}")
    logits = task.head(features)
    if task.family.kind == "classification":
        golden.check("logits", logits, f"logits{suffix}")
        assert logits.argmax() == golden.values[f"logits{suffix}"].argmax()
        return features
    golden.check("logits", logits[..., ::8, ::8], f"logits_s8{suffix}")
    golden.check_argmax(logits, f"argmax{suffix}")
    golden.check("auxiliary", task.model.aux(features[3])[:, ::5], f"aux_lowres{suffix}")
    return features


def check_teacher(task, golden, picture):
    features = task.pixel_features(picture)
    golden.check_features(features, "teacher_", "")
    logits = task.forward_pixels(picture)
    if task.family.kind == "classification":
        golden.check("teacher logits", logits, "teacher_logits")
    else:
        golden.check("teacher logits", logits[..., ::8, ::8], "teacher_logits_s8")
        golden.check_argmax(logits, "teacher_argmax")
    return features


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN_IMAGES)
@torch.no_grad()
def test_golden_vectors_are_met_through_an_official_checkpoint(case, golden, stage2_checkpoint):
    (task,) = load_checkpoint(stage2_checkpoint(case)).tasks.values()
    values = Golden(np.load(golden / f"{case}.npz"))
    teacher = check_teacher(
        task, values, normalised(golden / f"{GOLDEN_IMAGES[case]}.png", task.family.preprocessing)
    )
    for quality in (1.0, 3.0, 5.5, 8.0):
        student = check_student(task, values, quality)
        terms = [F.mse_loss(s, t).item() for s, t in zip(student, teacher, strict=True)]
        values.check("distillation terms", terms, f"dist_terms_q{quality:g}")
        if case == "seg_pspnet50" and quality == 3.0:
            values.check("logits", _crop(task.head(student)), "logits_crop_q3")
    print(case, {kind: f"{error:.2g}" for kind, error in values.errors.items()})
    assert all(error < TOLERANCE for kind, error in values.errors.items() if kind != "argmax pixels")


def _crop(logits):
    return logits[:, :20, :65, :65]
