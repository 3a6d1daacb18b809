"""The distribution builds and installs as users get it: sdist, wheel, and without a compiler."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {"polc", "polc_export", "polc_runtime", "polc_training"}
NO_CUDA = {"SKBUILD_CMAKE_DEFINE": "POLC_CUDA=OFF"}  # minutes of nvcc, which test_na2d_cuda_build.py spends


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **NO_CUDA, **environment},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def install(wheel, target):
    run("-m", "pip", "install", "--no-deps", "--target", target, wheel)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); sys.meta_path[:] = sys.meta_path[-3:]\n"
        "import polc_runtime, polc_runtime.bitstream.rans as rans\n"
        "from polc_runtime.backends.op_library import find_op_library\n"
        "print(polc_runtime.__file__, rans.implementation(), find_op_library().path)"
    )
    return run("-c", code).split()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist, and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--outdir", out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_wheel_holds_the_packages_their_types_and_licences(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == PACKAGES
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    assert any(name.startswith("polc_runtime/_rans") for name in names)
    assert any(name.startswith("polc_runtime/libpolc_ops") for name in names)
    assert "polc_runtime/bundles/nano/manifest.json" in names
    assert [name for name in names if name.endswith(("/LICENSE", "/NOTICE"))]
    assert not [name for name in names if "test" in name or "csrc" in name]


def test_sdist_holds_the_sources_of_the_native_parts(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {
        "CMakeLists.txt",
        "runtime/csrc/coder/rans.h",
        "runtime/csrc/coder/rans_module.cpp",
        "runtime/csrc/attention/cpu.cmake",
        "runtime/csrc/attention/cuda.cmake",
        "runtime/csrc/attention/c_api.cc",
        "runtime/csrc/attention/ort_op.cc",
        "pyproject.toml",
    } <= names


def test_wheel_installs_and_codes_natively_with_its_own_operators(built, tmp_path):
    path, coder, library = install(built[1], tmp_path / "site")
    assert path.startswith(str(tmp_path)) and coder == "native" and library.startswith(str(tmp_path))


def test_without_a_compiler_it_still_installs_and_says_so(tmp_path):
    output = run("-m", "pip", "wheel", "--no-deps", "-v", "-w", tmp_path, REPOSITORY, CXX="/bin/false")
    assert output.count("the pure-Python coder and the portable attention run instead") == 1
    (wheel,) = tmp_path.glob("*.whl")
    assert install(wheel, tmp_path / "site")[1:] == ["python", "None"]
