"""Names of classes in checkpoints: kept by task, used by the export, refused where they do not fit."""

import json

import pytest
from formula import formula_codec, formula_task
from safetensors.torch import load_file, save_file

from polc import CheckpointError, codec_id, load_checkpoint, preset, save_checkpoint
from polc.weights import METADATA_KEY
from polc_export import Stage2, TaskOptions
from polc_export.tasks import load_stage2, task_exports

CONFIG = preset("polc-tiny")
NAMES = [f"animal {letter}" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def codec():
    return formula_codec(CONFIG)


@pytest.fixture(scope="module")
def task():
    return formula_task("convnext_mini", CONFIG)


@pytest.fixture
def checkpoint(codec, task, tmp_path):
    path = tmp_path / "animals.safetensors"
    metadata = {"stage": "stage2-cls", "classes": {"animals": NAMES}}
    save_checkpoint(path, codec, metadata, tasks={"animals": task})
    return path


def exported(codec, sources, options=TaskOptions()):  # noqa: B008
    tasks = task_exports(load_stage2(sources, options), codec_id(codec), [], options)
    return {task.entry.name: task.entry.classes for task in tasks}


def test_a_checkpoint_gives_them_back_beside_its_metadata(checkpoint, codec):
    loaded = load_checkpoint(checkpoint)
    assert loaded.classes == {"animals": tuple(NAMES)}
    assert loaded.metadata == {"stage": "stage2-cls", "classes": {"animals": NAMES}}
    again = checkpoint.with_name("again.safetensors")
    save_checkpoint(again, loaded.codec, loaded.metadata, tasks=loaded.tasks)
    assert load_checkpoint(again).classes == loaded.classes


def test_without_them_there_are_none(codec, task, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", codec, tasks={"animals": task})
    assert load_checkpoint(tmp_path / "a.safetensors").classes == {}


def test_the_export_uses_them_under_another_name_too(checkpoint, codec):
    assert exported(codec, [Stage2(checkpoint)]) == {"animals": tuple(NAMES)}
    assert exported(codec, [Stage2(checkpoint, "pets")]) == {"pets": tuple(NAMES)}


def test_a_file_of_names_goes_before_them(checkpoint, codec):
    labels = checkpoint.with_name("labels.txt")
    labels.write_text("".join(f"pet {index}\n" for index in range(10)))
    found = exported(codec, [Stage2(checkpoint)], TaskOptions(labels={None: labels}))
    assert found == {"animals": tuple(f"pet {index}" for index in range(10))}


BAD = [
    ({"animals": NAMES[:9]}, "there are 9 names of classes for animals, which has 10"),
    ({"plants": NAMES}, "there are names of classes for 'plants', but no such task"),
    ({"animals": [*NAMES[:9], 7]}, "animals's classes are not usable"),
    ({"animals": [*NAMES[:9], ""]}, "animals's classes are not usable"),
    ({"animals": "abcdefghij"}, "animals's classes are not usable"),
    (NAMES, "expected a list for each task's name"),
    (None, "expected a list for each task's name"),
]


@pytest.mark.parametrize(("classes", "said"), BAD)
def test_what_does_not_fit_is_neither_written_nor_read(checkpoint, codec, task, classes, said):
    path = checkpoint.with_name("bad.safetensors")
    with pytest.raises(CheckpointError, match=said):
        save_checkpoint(path, codec, {"classes": classes}, tasks={"animals": task})
    assert not path.exists()
    document = {"config": CONFIG.to_dict(), "tasks": {"animals": "convnext_mini"}, "classes": classes}
    save_file(load_file(checkpoint), path, metadata={METADATA_KEY: json.dumps(document)})
    with pytest.raises(CheckpointError, match=said) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")
