"""Fixtures for all tests: where the shared reference data lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("POLC_SHARED", REPOSITORY.parent / "shared"))
EXPORT_COMMAND = [sys.executable, "-c", "import sys; from polc_export.cli import main; sys.exit(main())"]


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
def kodak() -> Path:
    """The folder of Kodak images."""
    return _shared("data/kodak")


@pytest.fixture(scope="session")
def official_checkpoint(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full-size model with formula weights and golden tables, in the official layout."""
    import torch

    from polc.formula import formula_tensor

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
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small codec with formula weights, in this project's layout."""
    from polc import preset, save_checkpoint
    from polc.formula import formula_codec

    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(path, formula_codec(preset("polc-tiny")), {"notes": ["untrained"]})
    return path


@pytest.fixture(scope="session")
def tiny_export(tiny_checkpoint: Path) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`polc-export` on the very small codec: what it printed, and the bundle it made."""
    command = [*EXPORT_COMMAND, "--stage1", str(tiny_checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    return done, tiny_checkpoint.with_name("tiny.bundle")


@pytest.fixture(scope="session")
def tiny_bundle(tiny_export: tuple[subprocess.CompletedProcess[str], Path]) -> Path:
    """The very small codec, exported and validated."""
    done, bundle = tiny_export
    assert done.returncode == 0, done.stderr
    return bundle


@pytest.fixture(scope="session")
def official_bundle(official_checkpoint: Path) -> Path:
    """The full-size model with golden tables, exported and validated: minutes."""
    from polc_export import export_bundle

    return export_bundle(official_checkpoint).bundle.path
