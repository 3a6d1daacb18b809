"""The CPU attention kernel with every instruction set of this machine, by the random driver in C++."""

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "runtime" / "csrc" / "attention"


@pytest.fixture(scope="module")
def driver(once, compile_cpp):
    def make(folder):
        compile_cpp(HERE / "na2d_driver.cc", SOURCES / "c_api.cc", "-o", folder / "driver")

    return once("na2d_driver", make) / "driver"


@pytest.mark.parametrize("seed", range(3))
def test_every_instruction_set_and_number_of_threads_is_right_on_random_problems(driver, seed):
    done = subprocess.run([driver, "60", str(seed)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("baseline ") and done.stdout.endswith("on 60 problems: 0 failures\n")


@pytest.mark.slow
def test_the_sanitizers_find_nothing():
    script = SOURCES / "sanitize.sh"
    done = subprocess.run(["sh", script, "100", "11"], capture_output=True, text=True, timeout=900)
    if "cannot find" in done.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert done.returncode == 0, done.stdout + done.stderr
