"""Training from Python: results, stopping and resuming, what is refused; the example in the documentation."""

import dataclasses
import doctest
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import polc_training.api
from polc import load_checkpoint
from polc_runtime.errors import CheckpointError, UsageError
from polc_training import (
    PLANS,
    AdapterTraining,
    AdversarialTraining,
    CodecTraining,
    Hardware,
    Listener,
    PixelTraining,
    Plan,
    RunOptions,
    TrainingData,
    evaluate,
    train,
)

STEPS = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        (folder / split).mkdir()
        for index in range(count):
            pixels = rng.integers(0, 256, (80, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{index}.png")
    return folder


def stage1(photos, folder, resume=False, attention="auto", **options):
    """Four steps of stage 1, with a validation after the second and the last."""
    plan = Plan(max_steps=STEPS, batch_size=2, patch_size=64, ema=0.9, seed=5)
    return CodecTraining(
        TrainingData(photos, num_workers=0),
        RunOptions(folder, resume, log_every=1, save_every=3, validate_every=2),
        plan=plan,
        hardware=Hardware("cpu", attention=attention),
        preset="polc-tiny",
        perceptual="none",
        stratified=True,
        **options,
    )


class StopAt(Listener):
    """Stops a run after a step, and notes what it hears."""

    def __init__(self, step=None):
        self.step, self.done, self.heard = step, 0, []

    def start(self, step, total, rank):
        self.done = step
        self.heard.append((step, total, rank))

    def advance(self, losses):
        self.done += 1

    def record(self, kind, step, values):
        self.heard.append((kind, step))

    def stop(self):
        return self.done == self.step


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """Uninterrupted runs by attention kernel, each made once."""
    results = {}

    def run(attention):
        if attention not in results:
            folder = tmp_path_factory.mktemp(attention) / "run"
            results[attention] = train(stage1(photos, folder, attention=attention))
        return results[attention]

    return run


def assert_same_run(one, other):
    weights = [load_checkpoint(run / "last.safetensors").codec.state_dict() for run in (one, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    states = [torch.load(run / "last.pt", weights_only=True) for run in (one, other)]
    assert states[0]["progress"] == states[1]["progress"]
    assert torch.equal(states[0]["random"][0]["torch"], states[1]["random"][0]["torch"])
    logs = [
        [{**json.loads(line), "time": 0} for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("attention", ["auto", "portable"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_run_stopped_before_or_after_a_validation_and_resumed_is_the_uninterrupted_one(
    photos, whole, tmp_path, attention, step
):
    stopped = train(stage1(photos, tmp_path, attention=attention), StopAt(step))
    assert (stopped.steps, stopped.total, stopped.finished) == (step, STEPS, False)
    resumed = train(stage1(photos, tmp_path, resume=True, attention=attention))
    assert resumed.finished
    assert_same_run(tmp_path, whole(attention).folder)


def test_a_run_stopped_between_a_step_and_its_validation_validates_when_it_is_resumed(
    photos, whole, tmp_path
):
    assert train(stage1(photos, tmp_path), StopAt(2)).loss is None
    train(stage1(photos, tmp_path, resume=True))
    assert_same_run(tmp_path, whole("auto").folder)


def test_a_run_that_is_stopped_in_its_last_step_is_finished(photos, whole, tmp_path):
    assert train(stage1(photos, tmp_path), StopAt(STEPS)).finished
    assert_same_run(tmp_path, whole("auto").folder)


def test_states_of_older_versions_are_resumed_without_a_second_validation(photos, whole, tmp_path):
    run = tmp_path / "run"
    train(stage1(photos, run), StopAt(3))
    state = torch.load(run / "last.pt", weights_only=True)
    del state["progress"]["validated"]
    torch.save(state, run / "last.pt")
    train(stage1(photos, run, resume=True))
    assert_same_run(run, whole("auto").folder)


def test_crops_that_the_codec_does_not_take_are_refused(photos, tmp_path):
    training = dataclasses.replace(stage1(photos, tmp_path), plan=Plan(patch_size=96))
    with pytest.raises(UsageError, match="patch_size: expected a multiple of 64, got 96"):
        train(training)


def test_a_listener_hears_the_start_and_every_record(photos, tmp_path):
    listener = StopAt()
    train(stage1(photos, tmp_path), listener)
    steps = [("train", 1), ("train", 2), ("validation", 2), ("train", 3), ("train", 4), ("validation", 4)]
    assert listener.heard == [(0, STEPS, 0), *steps]


def test_a_result_names_the_checkpoints_and_the_least_loss(photos, whole, tmp_path):
    result = whole("auto")
    records = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert result.loss == min(record["loss"] for record in records if record["kind"] == "validation")
    assert load_checkpoint(result.last).metadata["steps"] == STEPS
    assert result.best is not None and result.best.is_file()
    without = train(stage1(photos / "train", tmp_path))
    assert (without.loss, without.best) == (None, None)


def test_evaluating_a_run_gives_what_its_last_validation_found(photos, whole, tmp_path):
    folder = whole("portable").folder
    before = (folder / "last.pt").read_bytes(), (folder / "log.jsonl").read_text()
    found = evaluate(stage1(photos, folder, resume=True, attention="portable"))
    assert (folder / "last.pt").read_bytes() == before[0]
    record = json.loads(before[1].splitlines()[-1])
    assert (found.loss, list(found.record["levels"])) == (record["loss"], record["levels"])
    with pytest.raises(UsageError, match="nothing to validate on: name the data as validation"):
        evaluate(stage1(photos / "train", tmp_path))


def test_training_prints_nothing(photos, tmp_path, capfd):
    train(stage1(photos, tmp_path))
    assert capfd.readouterr() == ("", "")


def test_a_folder_with_a_run_is_not_overwritten(photos, whole):
    with pytest.raises(UsageError, match="already holds a run: resume it, or choose another folder"):
        train(stage1(photos, whole("auto").folder))


def test_a_folder_without_a_run_is_not_resumed(photos, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no run to resume \(last.pt is missing\)"):
        train(stage1(photos, tmp_path, resume=True))


def test_stages_that_start_from_a_codec_need_one(photos, tmp_path):
    where = TrainingData(photos, num_workers=0), RunOptions(tmp_path)
    with pytest.raises(UsageError, match="starts from stage 1's checkpoint: give it as pretrained"):
        train(AdversarialTraining(*where, hardware=Hardware("cpu"), perceptual="none"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Plan(schedule="linear"), "schedule: expected one of milestones, cosine, got 'linear'"),
        (lambda: Plan(batch_size=0), "batch_size: expected 1 or more, got 0"),
        (lambda: Plan(learning_rate=float("nan")), "learning_rate: expected 0 or more, got nan"),
        (lambda: Plan(ema=1.0), "ema: expected less than 1, got 1.0"),
        (lambda: Hardware(precision="int8"), "precision: expected one of fp32, bf16, fp16, got 'int8'"),
        (lambda: Hardware(attention="cuda"), "attention: expected one of auto, .*, got 'cuda'"),
        (lambda: stage1("x", "y", init="zeros"), "init: expected one of random, pca, got 'zeros'"),
        (
            lambda: AdapterTraining(
                TrainingData("x"), RunOptions("y"), family="swin_tiny", augmentation="none"
            ),
            "augmentation: expected one of resized-crop, padded-crop, got 'none'",
        ),
        (lambda: TrainingData("x", num_workers=-1), "num_workers: expected 0 or more, got -1"),
        (lambda: RunOptions("y", log_every=0), "log_every: expected 1 or more, got 0"),
    ],
)
def test_options_that_do_not_exist_are_refused_with_those_that_do(make, said):
    with pytest.raises(UsageError, match=said):
        make()


def test_each_stage_has_the_plan_of_the_method():
    where = TrainingData("x"), RunOptions("y")
    assert AdapterTraining(*where, family="swin_tiny").plan == PLANS["stage2-cls"]
    assert PixelTraining(*where, family="pspnet50").plan == PLANS["pixels-seg"]
    assert AdversarialTraining(*where).plan == PLANS["stage1-gan"]
    assert PLANS["stage1"] == Plan(400, learning_rate=1e-4, milestones=(300,), batch_size=8, patch_size=256)


def test_the_package_is_imported_without_pytorch():
    code = "import sys, polc_training; polc_training.__all__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_documentations_example_runs():
    found = doctest.testmod(polc_training.api)
    assert found.attempted > 0 and found.failed == 0
