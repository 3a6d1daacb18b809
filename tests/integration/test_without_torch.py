"""The runtime in an environment that holds its declared requirements and nothing else."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import polc_runtime


def requirements(name, seen):
    """A distribution and everything it requires without extras, by importlib.metadata."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    distribution = seen[key] = metadata.distribution(name)
    for line in distribution.requires or ():
        if "extra ==" in line:
            continue
        try:
            requirements(re.match(r"[\w.-]+", line)[0], seen)
        except metadata.PackageNotFoundError:
            assert ";" in line, line  # for another platform or Python


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A folder with the runtime and its requirements: all that the interpreter can import besides its own."""
    folder = tmp_path_factory.mktemp("environment")
    (folder / "polc_runtime").symlink_to(Path(polc_runtime.__file__).parent)
    found = {}
    requirements("polc", found)
    del found["polc"]
    for distribution in found.values():
        for top in {file.parts[0] for file in distribution.files or () if ".." not in file.parts}:
            if not (folder / top).exists():
                (folder / top).symlink_to(distribution.locate_file(top))
    return folder


def run(environment, code, *arguments):
    """Runs code in an isolated interpreter that sees the environment alone."""
    prelude = f"import sys; sys.path.insert(0, {str(environment)!r})\n"
    command = [sys.executable, "-I", "-S", "-c", prelude + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def save_noise(path):
    """A small picture of noise, the same every time."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)).save(path)


def test_environment_has_no_torch(environment):
    for module in ("torch", "compressai", "onnx", "scipy", "polc", "polc_export"):
        done = run(environment, f"import {module}")
        assert done.returncode != 0 and f"No module named '{module}'" in done.stderr


def test_imports_without_torch(environment):
    done = run(environment, "import polc_runtime, polc_runtime.codec.codec, polc_runtime.cli")
    assert done.returncode == 0, done.stderr


def test_codes_and_decodes_without_torch(environment, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", "none")  # the environment has none: other last bits, other rounding
    photo = tmp_path / "photo.png"
    save_noise(photo)
    code = "from polc_runtime.cli import main; sys.exit(main())"
    bundle = ("--bundle", tiny_bundle)
    for arguments in (
        ("compress", photo, "-o", tmp_path / "photo.polc", *bundle),
        ("verify", tmp_path / "photo.polc", *bundle),
        ("decompress", tmp_path / "photo.polc", "-o", tmp_path / "back.png", *bundle),
    ):
        done = run(environment, code, *arguments)
        assert done.returncode == 0, done.stderr
    with polc_runtime.Codec.load(tiny_bundle) as codec:
        expected = codec.decompress((tmp_path / "photo.polc").read_bytes())
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), expected)


def test_predicts_without_torch(environment, task_bundle, tmp_path):
    photo = tmp_path / "photo.png"
    save_noise(photo)
    code = "from polc_runtime.cli import main; sys.exit(main())"
    coded = tmp_path / "photo.polc"
    tasks = ("--task", "convnext", "--task", "scenes-1", "--via-pixels", "-o", tmp_path / "map.png")
    for arguments in (("compress", photo, "-o", coded, "--for-task", "convnext"), ("infer", coded, *tasks)):
        done = run(environment, code, *arguments, "--bundle", task_bundle)
        assert done.returncode == 0, done.stderr
    assert "pet " in done.stdout and Image.open(tmp_path / "map.png").size == (256, 256)


def test_runtime_imports_no_other_package_of_the_project():
    """Imports point one way: the runtime imports none of the others, polc none of the exporter."""
    root = Path(polc_runtime.__file__).parent
    repository = Path(__file__).parents[2]
    forbidden = {
        root: r"polc|polc_export|polc_training|torch|compressai|onnx|scipy",
        repository / "polc": r"polc_export|polc_training",
        repository / "export/polc_export": r"polc_training",
    }
    for folder, names in forbidden.items():
        for file in folder.rglob("*.py"):
            found = re.search(rf"^\s*(?:import|from) (?:{names})(?![\w])", file.read_text(), re.MULTILINE)
            assert found is None, f"{file}: {found[0]}"
