"""The benchmark of the CUDA attention kernels, where there is no device for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "tests" / "gpu" / "attention_gpu.py"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so_and_ends_with_2():
    command = [sys.executable, "-W", "ignore", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=300)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "no CUDA device: attention_gpu.py measures nothing here\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_it_measures_the_kernel_and_finds_it_right(tmp_path):
    options = ["--only", "polc", "--size", "48x64", "--repeats", "2", "--out", tmp_path / "out.json"]
    command = [sys.executable, SCRIPT, *options]
    subprocess.run(command, check=True, timeout=900)
    document = json.loads((tmp_path / "out.json").read_text())
    errors = {row["dtype"]: row["max_error"] for row in document["rows"] if row["implementation"] == "polc"}
    assert errors["float32"] < 1e-5 and errors["float16"] < 5e-3
