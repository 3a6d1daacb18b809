"""Runs as a user makes them: stopped, killed, resumed, logged; a resumed run equals an uninterrupted one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from polc import load_checkpoint
from polc_runtime.errors import UsageError
from polc_training.cli import main
from polc_training.plan import Plan

PROGRAM = [sys.executable, "-c", "import sys; from polc_training.cli import main; sys.exit(main())"]
STAGE = ["stage1", "--preset", "polc-tiny", "--perceptual", "none", "--patch_size", "64", "--batch_size", "2"]
STAGE += ["--accelerator", "cpu", "--seed", "5", "-n", "0", "--quiet", "--stratified"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        (folder / split).mkdir()
        for index in range(count):
            small = rng.integers(0, 256, (12, 14, 3), dtype=np.uint8)
            Image.fromarray(small).resize((150, 130), Image.Resampling.BICUBIC).save(
                folder / split / f"{index}.png"
            )
    return folder


def train(photos, out, *more):
    return main([*STAGE, "-d", str(photos), "--save-dir", str(out), *more])


def weights(run):
    state = torch.load(run / "last.pt", weights_only=True)
    return state, load_checkpoint(run / "last.safetensors").codec.state_dict()


def assert_same_run(a, b):
    (state_a, codec_a), (state_b, codec_b) = weights(a), weights(b)
    for key, value in codec_a.items():
        assert torch.equal(value, codec_b[key]), key
    for name, optimizer in state_a["optimizers"].items():
        for index, values in optimizer["state"].items():
            for key, value in values.items():
                assert torch.equal(value, state_b["optimizers"][name]["state"][index][key])
    assert torch.equal(state_a["random"][0]["torch"], state_b["random"][0]["torch"])
    assert state_a["progress"] == state_b["progress"]
    losses = [
        [{**json.loads(r), "time": 0} for r in (x / "log.jsonl").read_text().splitlines()] for x in (a, b)
    ]
    assert losses[0] == losses[1]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    more = [
        "--max-steps",
        "8",
        "--ema",
        "0.9",
        "--log-every",
        "1",
        "--validate-every",
        "4",
        "--save-every",
        "3",
    ]
    assert train(photos, out, *more) == 0
    return out / "stage1"


OPTIONS = ["--ema", "0.9", "--log-every", "1", "--validate-every", "4", "--save-every", "3"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_rest_of_the_run_is_the_same(photos, whole, tmp_path, number):
    more = [*STAGE, "-d", str(photos), "--save-dir", str(tmp_path), "--max-steps", "8", *OPTIONS]
    process = subprocess.Popen([*PROGRAM, *more], stderr=subprocess.PIPE, text=True, env=os.environ)
    run = tmp_path / "stage1"
    wait_for(lambda: (run / "log.jsonl").exists() and (run / "log.jsonl").read_text(), process)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert f"resume with --checkpoint {run}" in said
    assert train(photos, tmp_path, "--max-steps", "8", *OPTIONS, "--checkpoint", str(run)) == 0
    assert_same_run(run, whole)


def test_a_killed_run_is_resumed_from_its_last_saved_state(photos, whole, tmp_path):
    more = [*STAGE, "-d", str(photos), "--save-dir", str(tmp_path), "--max-steps", "8", *OPTIONS]
    process = subprocess.Popen([*PROGRAM, *more])
    run = tmp_path / "stage1"
    wait_for(lambda: (run / "last.pt").exists(), process)
    process.kill()
    process.wait()
    assert train(photos, tmp_path, "--max-steps", "8", *OPTIONS, "--checkpoint", str(run)) == 0
    assert_same_run(run, whole)


def wait_for(ready, process):
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_validation_reports_real_bytes_beside_estimated_bits(whole):
    records = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    found = [record for record in records if record["kind"] == "validation"]
    assert [record["step"] for record in found] == [4, 8]
    assert [level["quality"] for level in found[-1]["levels"]] == list(range(1, 9))
    for level in found[-1]["levels"]:
        assert level["bpp"] > level["payload_bpp"]
        assert level["psnr-rgb"] > 5
    assert (whole / "samples/image0.png").is_file() and (whole / "best.safetensors").is_file()


def test_a_second_run_does_not_overwrite_the_first(photos, whole, capsys):
    assert train(photos, whole.parent, "--max-steps", "8") == 2
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "6"], "seed 5 there, 6 here"),
        (["--batch_size", "3"], "batch_size 2 there, 3 here"),
    ],
)
def test_resuming_with_other_settings_is_refused(photos, whole, capsys, more, said):
    assert train(photos, whole.parent, "--max-steps", "9", *OPTIONS, *more, "--checkpoint", str(whole)) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_run_cannot_be_resumed(photos, whole, tmp_path, capsys):
    shutil.copy(whole / "last.safetensors", tmp_path)
    (tmp_path / "last.pt").write_bytes(b"no state")
    assert train(photos, tmp_path, "--checkpoint", str(tmp_path)) == 2
    assert "is not a training state" in capsys.readouterr().err
    assert train(photos, tmp_path, "--checkpoint", str(tmp_path / "none")) == 2
    assert "no run to resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--patch_size", "96"], "multiple of 64, got 96"),
        (["--milestones", "x"], "expected epochs such as"),
        (["--batch_size", "100"], "batch"),
        (["-d", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_options_are_one_line(photos, tmp_path, capsys, more, said):
    assert train(photos, tmp_path, *more) == 2
    err = capsys.readouterr().err.strip()
    assert said in err and "\n" not in err


def test_schedules():
    plan = Plan(epochs=4, milestones=(2, 3), warmup=3)
    assert [plan.factor(step, 5) for step in (0, 2, 3, 9)] == pytest.approx([0.25, 0.75, 1, 1])
    assert [plan.factor(step, 5) for step in (10, 15)] == pytest.approx([0.1, 0.01])
    cosine = Plan(epochs=4, max_steps=10, schedule="cosine")
    assert [cosine.factor(step, 5) for step in (0, 5, 10)] == pytest.approx([1, 0.5, 0], abs=1e-12)
    assert cosine.total_steps(5) == 10
    with pytest.raises(UsageError, match=r"fewer samples than one batch \(8\): lower"):
        Plan(epochs=1).total_steps(0)


@pytest.mark.slow
def test_two_processes_train_one_model(photos, tmp_path):
    program = Path(sys.executable).with_name("polc-train")
    more = [*STAGE, "-d", str(photos), "--save-dir", str(tmp_path), "--max-steps", "2", "--devices", "2"]
    done = subprocess.run([program, *more, "--batch_size", "1"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "stage1/last.pt", weights_only=True)
    assert state["progress"]["step"] == 2 and len(state["random"]) == 2
    assert load_checkpoint(tmp_path / "stage1/last.safetensors").metadata["steps"] == 2


@pytest.mark.slow
def test_half_precision_and_accumulation_train(photos, tmp_path):
    assert (
        train(
            photos,
            tmp_path,
            "--max-steps",
            "2",
            "--precision",
            "bf16",
            "--accumulate",
            "2",
            "--batch_size",
            "1",
        )
        == 0
    )
    records = (tmp_path / "stage1/log.jsonl").read_text().splitlines()
    assert json.loads(records[-1])["loss"] > 0
