"""The bundles in `plans/` are what `plan_bundles` makes, but for how onnx and numpy write files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import plan_bundles
import pytest
from golden_format import PLANS


def content(folder: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The manifest without hashes, the graphs, and the tables, of a bundle."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["fingerprint"], manifest["codec_id"], manifest["entropy"]["sha256"]
    models = {graph["name"]: onnx.load(folder / graph["file"]) for graph in manifest["graphs"]}
    for graph in manifest["graphs"]:
        del graph["sha256"]
    with np.load(folder / "entropy.npz") as arrays:
        tables = {name: arrays[name].tolist() for name in arrays}
    return manifest, models, tables


@pytest.mark.parametrize("name", plan_bundles.CODING)
def test_the_kept_bundles_are_what_the_maker_makes(name: str, tmp_path: Path) -> None:
    plan_bundles.make(name, tmp_path / name)
    assert content(tmp_path / name) == content(PLANS / name)
