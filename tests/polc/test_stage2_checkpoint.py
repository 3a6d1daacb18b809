"""Stage-2 checkpoints in both layouts: what loads whole, what is dropped, what is refused, in which words."""

import json

import pytest
import torch
from formula import formula_codec, formula_task
from safetensors.torch import load_file, save_file

from polc import CheckpointError, codec_id, load_checkpoint, preset, save_checkpoint, save_official
from polc.tasks import FAMILIES
from polc.weights import persistent

NAMES = ("tiny_convnext", "tiny_swin", "tiny_deit", "tiny_pspnet")
CONFIG = preset("polc-tiny")


@pytest.fixture(scope="module")
def codec():
    return formula_codec(CONFIG)


@pytest.fixture(scope="module")
def tasks(tiny_families):
    return {name: formula_task(name, CONFIG) for name in tiny_families}


@pytest.fixture
def official(codec, tasks, tmp_path):
    """Writes an official stage-2 checkpoint after a change to its tensors, and gives its path."""

    def write(name="tiny_convnext", change=lambda state: None):
        path = tmp_path / f"{name}.pth.tar"
        save_official(path, codec, task=tasks[name])
        state = torch.load(path, weights_only=True)["state_dict"]
        change(state)
        torch.save({"epoch": 1, "state_dict": state}, path)
        return path

    return write


def same_weights(a, b):
    a, b = persistent(a), persistent(b)
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.mark.parametrize("name", NAMES)
def test_official_layout_loads_whole_and_tells_family_and_classes(codec, tasks, official, name):
    def with_teacher(state):
        for key in [k for k in state if k.startswith("task_model.")]:
            state[key.replace("task_model.", "task_model_teacher.")] = torch.full_like(state[key], 9)
        state["mask_token"] = torch.zeros(1)
        state["backbone.mask_token"] = torch.zeros(1)

    loaded = load_checkpoint(official(name, with_teacher))
    assert list(loaded.tasks) == [name] and loaded.tasks[name].classes == 10
    assert same_weights(loaded.tasks[name], tasks[name])
    assert codec_id(loaded.codec) == codec_id(codec)
    assert not loaded.tasks[name].training


@pytest.mark.parametrize("name", ["tiny_swin", "tiny_pspnet", "tiny_convnext"])
def test_downsampling_weights_come_through_unchanged(tasks, official, name):
    path = official(name)
    stored = torch.load(path, weights_only=True)["state_dict"]
    found = persistent(load_checkpoint(path).tasks[name])
    keys = [key for key in stored if ".downsample." in key and not key.endswith("num_batches_tracked")]
    assert keys and all(torch.equal(found[key.removeprefix("task_")], stored[key]) for key in keys)


def test_old_timm_names_of_swin_load(tasks, official):
    def as_old_timm(state):
        for key in sorted(k for k in state if k.startswith("task_model.")):
            value = state.pop(key)
            for stage in (1, 2, 3):
                key = key.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
            state[key.replace("head.fc.", "head.")] = value
        state["task_model.layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
        state["task_model.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)

    loaded = load_checkpoint(official("tiny_swin", as_old_timm))
    assert same_weights(loaded.tasks["tiny_swin"], tasks["tiny_swin"])


def test_parallel_prefix_loads(tasks, official):
    def change(state):
        for key in list(state):
            state[f"module.{key}"] = state.pop(key)

    assert same_weights(
        load_checkpoint(official(change=change)).tasks["tiny_convnext"], tasks["tiny_convnext"]
    )


def test_own_layout_keeps_several_tasks(codec, tasks, tmp_path):
    path = tmp_path / "a.safetensors"
    named = {"birds": tasks["tiny_deit"], "scenes": tasks["tiny_pspnet"]}
    save_checkpoint(path, codec, {"stage": "stage2"}, tasks=named)
    loaded = load_checkpoint(path)
    assert loaded.metadata == {"stage": "stage2"} and list(loaded.tasks) == ["birds", "scenes"]
    assert all(same_weights(loaded.tasks[name], task) for name, task in named.items())
    assert codec_id(loaded.codec) == codec_id(codec)
    assert {key.split(".")[1] for key in load_file(path) if key.startswith("task.")} == {"birds", "scenes"}


def test_a_codec_alone_has_no_tasks(codec, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", codec)
    assert load_checkpoint(tmp_path / "a.safetensors").tasks == {}


@pytest.mark.parametrize("positions", [197, 257])
def test_position_embeddings_of_either_length_load(codec, tiny_families, tmp_path, positions):
    path = tmp_path / "deit.pth.tar"
    task = formula_task("tiny_deit", CONFIG, classes=7, positions=positions)
    save_official(path, codec, task=task)
    loaded = load_checkpoint(path).tasks["tiny_deit"]
    assert same_weights(loaded, task) and loaded.classes == 7
    assert loaded(torch.randn(1, 32, 12, 16), torch.ones(1)).shape == (1, 7)


def test_family_overrides_what_the_shapes_say(official, monkeypatch, tiny_families):
    twin = tiny_families["tiny_convnext"]
    monkeypatch.setitem(FAMILIES, "twin", twin.__class__(**{**vars(twin), "name": "twin"}))
    assert list(load_checkpoint(official()).tasks) == ["tiny_convnext"]
    assert list(load_checkpoint(official(), family="twin").tasks) == ["twin"]


TOKEN = "task_model.blocks.0.norm1.weight"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "tiny_convnext",
            lambda s: s.pop("adapter.upsample_layer.bias"),
            "missing weights: adapter.upsample_layer.bias",
        ),
        (
            "tiny_convnext",
            lambda s: s.pop("adapter.transform_layer.residual_group.blocks.0.attn.qkv.weight"),
            "missing weights: adapter.transform_layer.residual_group.blocks.0.attn.qkv.weight",
        ),
        (
            "tiny_convnext",
            lambda s: s.pop("adapter.transform_layer.residual_group.blocks.0.attn.rpb"),
            "missing weights: adapter.transform_layer.residual_group.blocks.0.attn.rpb",
        ),
        (
            "tiny_convnext",
            lambda s: s.pop("task_model.head.fc.weight"),
            "missing weights: task_model.head.fc.weight",
        ),
        (
            "tiny_pspnet",
            lambda s: s.pop("task_model.aux.0.weight"),
            "missing weights: task_model.aux.0.weight",
        ),
        (
            "tiny_deit",
            lambda s: s.update({"task_model.dist_token": torch.zeros(1)}),
            "weights: task_model.dist_token",
        ),
        ("tiny_convnext", lambda s: s.update({"adapter.x": torch.zeros(1)}), "unknown weights: adapter.x"),
        ("tiny_convnext", lambda s: s.update({"decoder.x": torch.zeros(1)}), "unknown weights: decoder.x"),
        (
            "tiny_deit",
            lambda s: s.update({TOKEN: torch.zeros(3)}),
            rf"{TOKEN} gives .* \(3,\), expected \(64,\)",
        ),
        (
            "tiny_deit",
            lambda s: s.update({TOKEN: torch.full((64,), torch.inf)}),
            "holds values that are not finite",
        ),
        (
            "tiny_deit",
            lambda s: s.update({"task_model.pos_embed": torch.zeros(1, 198, 64)}),
            r"task_model.pos_embed has 198 positions, expected .* \(197 or 257\)",
        ),
        (
            "tiny_deit",
            lambda s: s.update({"task_model.head.weight": torch.tensor(1.0)}),
            r"task_model.head.weight has the shape \(\), which tells no size",
        ),
        (
            "tiny_convnext",
            lambda s: s.update({"task_model.stem.0.weight": torch.zeros(31, 3, 4, 4)}),
            "of no known family .* there are convnext_tiny, .*; name one by family",
        ),
        (
            "tiny_convnext",
            lambda s: s.pop("backbone.h_s3.weight"),
            r"in backbone\.\*: missing weights: h_s3.weight",
        ),
        (
            "tiny_convnext",
            lambda s: [s.pop(key) for key in list(s) if key.startswith("backbone.")],
            r"an adapter, but no codec \(backbone",
        ),
        (
            "tiny_convnext",
            lambda s: [s.pop(key) for key in list(s) if key.startswith("task_model.")],
            "of no known family .its first weight is missing",
        ),
    ],
)
def test_wrong_weights_are_named(official, name, change, said):
    path = official(name, change)
    with pytest.raises(CheckpointError, match=said) as error:
        load_checkpoint(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_another_family_than_the_stored_one_is_refused(official):
    with pytest.raises(CheckpointError, match="missing weights: task_model.stages.0.blocks.1"):
        load_checkpoint(official("tiny_convnext"), family="convnext_tiny")
    with pytest.raises(
        CheckpointError, match="no vision model family is named 'vgg'; there are convnext_tiny"
    ):
        load_checkpoint(official("tiny_convnext"), family="vgg")


def test_an_adapter_of_another_codec_is_refused(codec, tiny_families, tmp_path):
    task = formula_task("tiny_convnext", preset("polc-nano"))
    said = "reads 160 latent channels at 8 quality levels, the codec has 32 at 8"
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(tmp_path / "a.safetensors", codec, tasks={"a": task})
    with pytest.raises(CheckpointError, match=said):
        save_official(tmp_path / "a.pth.tar", codec, task=task)


def test_a_task_name_that_fits_no_file_is_refused(codec, tasks, tmp_path):
    with pytest.raises(CheckpointError, match="'a.b' is not a name for a task"):
        save_checkpoint(tmp_path / "a.safetensors", codec, tasks={"a.b": tasks["tiny_deit"]})


@pytest.mark.parametrize(
    ("families", "said"),
    [
        (["tiny_convnext"], "the list of tasks is not usable"),
        ({"a": 3}, "the list of tasks is not usable"),
        ({"../a": "tiny_convnext"}, "not a name for a task"),
        ({"a": "hf-hub:evil/model"}, "no vision model family is named 'hf-hub:evil/model'"),
        ({"b": "tiny_convnext"}, "missing weights: model.head.fc.weight"),
        ({}, "unknown weights: task.a.adapter"),
    ],
)
def test_own_layout_refuses_a_list_of_tasks_that_does_not_fit(codec, tasks, tmp_path, families, said):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, codec, tasks={"a": tasks["tiny_convnext"]})
    document = {"config": CONFIG.to_dict(), "tasks": families}
    save_file(load_file(path), path, metadata={"polc": json.dumps(document)})
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)
