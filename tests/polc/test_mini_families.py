"""The families that two cores train: told apart from the others, and as graphs of any size."""

import pytest
import torch
from formula import formula_codec, formula_task
from torch.export import Dim

from polc import CheckpointError, TaskModel, load_checkpoint, preset, save_checkpoint
from polc.tasks import FAMILIES, infer_family

CONFIG = preset("polc-tiny")


@pytest.fixture(scope="module")
def small():
    return {name: formula_task(name, CONFIG) for name in ("convnext_mini", "pspnet_mini")}


def test_no_two_families_of_one_architecture_look_alike():
    looks = [(entry.architecture, entry.channels, entry.depth) for entry in FAMILIES.values()]
    assert len(set(looks)) == len(looks)


def test_they_are_told_by_their_weights_whatever_the_number_of_classes(small):
    for name in small:
        assert infer_family(TaskModel.create(name, CONFIG, classes=7).model.state_dict()).name == name


def test_they_are_small(small):
    for task in small.values():
        assert sum(p.numel() for p in task.model.parameters()) < 1_500_000
        assert sum(p.numel() for p in task.adapter.parameters()) < 100_000


def test_a_picture_for_the_classifier_is_as_small_as_the_codec_takes(small):
    steps = small["convnext_mini"].family.preprocessing
    assert (steps.resize, steps.crop) == (192, 192)


@torch.no_grad()
def test_both_paths_compare_features_of_the_same_shape(small):
    for task in small.values():
        student = task.features(torch.randn(2, 32, 12, 16), torch.tensor([1.0, 7.5]))
        teacher = task.pixel_features(torch.randn(2, 3, 192, 256))
        assert [f.shape for f in student] == [f.shape for f in teacher]


@torch.no_grad()
def test_the_dilated_stage_traces_with_dynamic_axes(small):
    model = small["convnext_mini"].model
    sides = {2: 64 * Dim("h", max=64), 3: 64 * Dim("w", max=64)}
    graph = torch.export.export(model, (torch.randn(2, 3, 192, 256),), dynamic_shapes=(sides,)).module()
    for height, width in ((192, 192), (64, 320)):
        picture = torch.randn(2, 3, height, width)
        torch.testing.assert_close(graph(picture), model(picture))


def test_timm_has_no_weights_for_them():
    with pytest.raises(CheckpointError, match="timm has no weights for convnext_mini"):
        TaskModel.create("convnext_mini", CONFIG, weights="timm")


def test_a_checkpoint_keeps_them(small, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", formula_codec(CONFIG), tasks=small)
    loaded = load_checkpoint(tmp_path / "a.safetensors").tasks
    assert {name: task.family.name for name, task in loaded.items()} == {name: name for name in small}
