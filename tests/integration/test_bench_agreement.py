"""`polc-bench agreement`: real files between real backends, with and without calibration."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from polc_runtime.cli.bench import main

NOISY = "onnxruntime:noise=0.45"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Noise over a gradient: scales of every size."""
    random = np.random.default_rng(1)
    ramp = np.linspace(0, 200, 256)[None, :, None] + random.integers(0, 55, (256, 256, 3))
    path = tmp_path_factory.mktemp("agreement") / "photo.png"
    Image.fromarray(ramp.astype(np.uint8)).save(path)
    return path


@pytest.fixture
def agreement(photo, capsys):
    """Runs `polc-bench agreement` on the photo; exit code, output, errors."""

    def run(*arguments):
        code = main([str(argument) for argument in ("agreement", photo, "--bundle", "nano", *arguments)])
        return code, *capsys.readouterr()

    return run


def test_calibration_saves_what_noise_would_lose(agreement, tmp_path):
    arguments = ("--setting", "onnxruntime", "--setting", "onnxruntime:optimisation=all", "--setting", NOISY)
    output = tmp_path / "agreement.json"
    code, out, err = agreement(*arguments, "--exponents", "12", "--qualities", "4,8", "-o", output, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document == json.loads(output.read_text())
    assert document["files_of_each"] == 2
    assert document["lost"] == [[0, 0, 0]] * 3
    without = np.array(document["lost_without_calibration"])
    assert without[2, 0] == 2 and without[0, 2] == 2 and without[0, 0] == 0
    for found, proposed in zip(document["qualities"], document["proposed_tolerances"], strict=True):
        assert found["exponents"] == [12] * 9 and 0 < found["calibration_share"] < 0.1
        # the noise that was added is no difference between backends
        for difference, exponent in zip(found["scale_difference"], proposed["exponents"], strict=True):
            assert difference < 1e-4 and (exponent == 21 or difference * 4 <= 2.0**-exponent)


def test_noise_beyond_the_tolerance_is_lost_and_counted(agreement):
    code, out, err = agreement(
        "--setting",
        "onnxruntime",
        "--setting",
        "onnxruntime:noise=9",
        "--exponents",
        "12",
        "--qualities",
        "8",
    )
    assert code == 0, err
    assert "lost with calibration: 0" not in out and "lost with calibration" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--setting", "abacus"), "setting abacus: no backend is named 'abacus'"),
        (("--setting", "torch"), "name the bundle's by --checkpoint"),
        (("--exponents", "3"), "from 6 to 21"),
        (("--exponents", "12,13"), "expected one or 9 whole numbers"),
    ],
)
def test_what_cannot_be_followed_is_one_line(agreement, arguments, message):
    code, _, err = agreement(*arguments)
    assert code == 2 and message in err and len(err.splitlines()) == 1
