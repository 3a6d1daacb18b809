"""Fixtures for all tests: where the shared reference data lies."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import pytest
from commands import EXPORT_COMMAND
from golden_checks import GOLDEN_TASKS
from shared_data import SHARED


def _shared(folder: str) -> Path:
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set POLC_SHARED)")
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden vectors."""
    return _shared("golden")


@pytest.fixture(scope="session")
def golden2() -> Path:
    """The folder of golden vectors of codecs other than POLC."""
    return _shared("golden2")


@pytest.fixture(scope="session")
def kodak() -> Path:
    """The folder of Kodak images."""
    return _shared("data/kodak")


@pytest.fixture(scope="session")
def official_checkpoint(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size model with formula weights and golden tables, in the official layout."""
    import torch
    from formula import formula_tensor

    keys = json.loads((golden / "state_keys.json").read_text())["TinyLICVR"]
    tables = np.load(golden / "entropy_tables.npz")
    state = {}
    for key, entry in keys.items():
        value = formula_tensor(key, entry["shape"])
        if value is not None:
            state[key] = torch.from_numpy(value)
    for prefix, short in (("entropy_bottleneck", "eb"), ("gaussian_conditional", "gc")):
        for name in ("quantized_cdf", "offset", "cdf_length"):
            state[f"{prefix}._{name}"] = torch.from_numpy(tables[f"{short}_{name}"])
    state["gaussian_conditional.scale_table"] = torch.from_numpy(tables["gc_scale_table"])
    state["mask_token"] = torch.zeros(1, 1, 1, 320)
    path = tmp_path_factory.mktemp("official") / "formula.pth.tar"
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a named folder once for all worker processes of a run."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with filelock.FileLock(root / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def tiny_checkpoint(once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A very small codec with formula weights, in this project's layout."""
    from formula import formula_codec

    from polc import preset, save_checkpoint

    def make(folder: Path) -> None:
        save_checkpoint(
            folder / "tiny.safetensors", formula_codec(preset("polc-tiny")), {"notes": ["untrained"]}
        )

    return once("tiny", make) / "tiny.safetensors"


class Printed(NamedTuple):
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def tiny_export(
    once: Callable[[str, Callable[[Path], None]], Path], tiny_checkpoint: Path
) -> tuple[Printed, Path]:
    """`polc-export` on the very small codec: what it printed, and the bundle it made."""

    def make(folder: Path) -> None:
        command = [*EXPORT_COMMAND, "--stage1", str(tiny_checkpoint)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        (folder / "printed.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

    printed = once("tiny_export", make) / "printed.json"
    return Printed(*json.loads(printed.read_text())), tiny_checkpoint.with_name("tiny.bundle")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_export: tuple[Printed, Path]) -> Path:
    """The very small codec, exported and validated."""
    done, bundle = tiny_export
    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture(scope="session")
def official_bundle(official_checkpoint: Path) -> Path:
    """The full-size model with golden tables, exported and validated: minutes."""
    from polc_export import export_bundle

    return export_bundle(official_checkpoint).bundle.path


@pytest.fixture(scope="session")
def stage2_checkpoint(
    golden: Path, official_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Writes the official stage-2 checkpoint of a golden file: formula weights, the full-size codec."""
    import torch
    from formula import formula_tensor

    folder = tmp_path_factory.mktemp("stage2")
    layouts = json.loads((golden / "state_keys.json").read_text())

    def write(case: str) -> Path:
        path = folder / f"{case}.pth.tar"
        if path.exists():
            return path
        wrapper, shapes = GOLDEN_TASKS[case]
        codec = torch.load(official_checkpoint, weights_only=True)["state_dict"]
        state = {"mask_token": codec.pop("mask_token"), **{f"backbone.{k}": v for k, v in codec.items()}}
        for key, entry in layouts[wrapper].items():
            if not key.startswith("backbone."):
                value = formula_tensor(key, shapes.get(key.partition(".")[2], entry["shape"]))
                assert value is not None
                state[key] = torch.from_numpy(value)
        torch.save({"epoch": 3, "state_dict": state}, path)
        return path

    return write


TINY_FAMILIES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "tiny_convnext": ("convnext_tiny", 32, 2, {"depths": (1, 1, 2, 1), "dims": (32, 32, 64, 64)}),
    "tiny_swin": (
        "swin_tiny",
        32,
        1,
        {"strict_img_size": False, "embed_dim": 32, "depths": (1, 2, 1, 2), "num_heads": (1, 2, 2, 4)},
    ),
    "tiny_deit": (
        "deit_small",
        64,
        2,
        {"dynamic_img_size": True, "embed_dim": 64, "depth": 2, "num_heads": 2},
    ),
    "tiny_pspnet": ("pspnet50", 32, 2, {"depths": (1, 1, 2, 1), "widths": (16, 16, 16, 16)}),
}
"""Very small members of every architecture: the family they are like, channels, depth, arguments."""


@pytest.fixture(scope="session")
def tiny_families() -> Iterator[dict[str, Any]]:
    """Very small vision models of 10 classes, in the registry while the tests run; by name."""
    from polc.tasks import FAMILIES

    added = {}
    for name, (like, channels, depth, arguments) in TINY_FAMILIES.items():
        added[name] = dataclasses.replace(
            FAMILIES[like], name=name, channels=channels, depth=depth, classes=10, arguments=arguments
        )
    FAMILIES.update(added)
    yield added
    for name in added:
        del FAMILIES[name]


@pytest.fixture(scope="session")
def tiny_stage2_checkpoint(tiny_families: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small codec with a classification and a segmentation task, in this project's layout."""
    from formula import formula_codec, formula_task

    from polc import preset, save_checkpoint

    path = tmp_path_factory.mktemp("tiny_stage2") / "tiny_stage2.safetensors"
    config = preset("polc-tiny")
    tasks = {name: formula_task(f"tiny_{name}", config) for name in ("convnext", "pspnet")}
    save_checkpoint(path, formula_codec(config), {"notes": ["untrained"]}, tasks=tasks)
    return path


@pytest.fixture(scope="session")
def task_export(
    once: Callable[[str, Callable[[Path], None]], Path], tiny_families: dict[str, Any], tiny_bundle: Path
) -> tuple[list[str], Path]:
    """`polc-export` of two tasks into the very small codec's bundle, the second in place.

    What both runs printed on standard output, and the bundle.
    """
    folder = once("tasks", lambda folder: _export_tasks(folder, tiny_bundle))
    return (folder / "printed.txt").read_text().splitlines(), folder / "tasks.bundle"


def _export_tasks(folder: Path, codec: Path) -> None:
    from formula import formula_codec, formula_task

    from polc import preset, save_checkpoint
    from polc_export.cli import main

    bundle, config = folder / "tasks.bundle", preset("polc-tiny")
    for name in ("convnext", "pspnet"):
        tasks = {name: formula_task(f"tiny_{name}", config)}
        save_checkpoint(folder / f"{name}.safetensors", formula_codec(config), tasks=tasks)
    (folder / "pets.txt").write_text("".join(f"pet {letter}\n" for letter in "abcdefghij"))
    first = ["--bundle", codec, "--stage2", folder / "convnext.safetensors", "--out", bundle]
    second = ["--bundle", bundle, "--stage2", f"scenes-1={folder / 'pspnet.safetensors'}", "--force"]
    printed = io.StringIO()
    for arguments in ([*first, "--labels", folder / "pets.txt"], second):
        with contextlib.redirect_stdout(printed):
            assert main([*map(str, arguments), "--with-pixels"]) == 0
    (folder / "printed.txt").write_text(printed.getvalue())


@pytest.fixture(scope="session")
def task_bundle(task_export: tuple[list[str], Path]) -> Path:
    """The very small codec with a classification, `convnext`, and a segmentation, `scenes-1`."""
    return task_export[1]
