"""The cache of engines: keys, sidecars, where it lies."""

import dataclasses
import json
from pathlib import Path

import pytest

from polc_runtime import BundleError, PolcError
from polc_runtime.backends.tensorrt.engine_cache import (
    EngineKey,
    Range,
    Target,
    cache_folder,
    engine_path,
    engines_of,
    parse_sidecar,
    preferred,
    refusal,
    store,
)

TARGET = Target("NVIDIA H100 80GB HBM3", "9.0", "8.6.0")
KEY = EngineKey(
    graph="analysis",
    graph_sha256="ab" * 32,
    variant="tensorrt",
    precision="fp16",
    tf32=False,
    ranges={"image": Range((1, 3, 192, 192), (1, 3, 512, 768), (4, 3, 1088, 1920))},
    target=TARGET,
)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "synthesis"},
        {"graph_sha256": "cd" * 32},
        {"variant": "tensorrt-plugin"},
        {"precision": "fp32"},
        {"tf32": True},
        {"ranges": {"image": Range((1, 3, 192, 192), (1, 3, 512, 768), (8, 3, 1088, 1920))}},
        {"target": dataclasses.replace(TARGET, gpu="NVIDIA H200")},
        {"target": dataclasses.replace(TARGET, compute_capability="8.0")},
        {"target": dataclasses.replace(TARGET, tensorrt="8.6.1")},
    ],
)
def test_whatever_differs_an_engine_lies_elsewhere(change):
    other = dataclasses.replace(KEY, **change)
    assert engine_path(Path("c"), other) != engine_path(Path("c"), KEY)


def test_an_engine_is_found_by_its_graph_with_all_that_was_stored(tmp_path):
    stored = store(tmp_path, KEY, b"engine", {"all": {"fp16": 3}})
    assert engines_of(tmp_path, KEY.graph_sha256) == [stored] and engines_of(tmp_path, "cd" * 32) == []
    assert stored.key == KEY and stored.read() == b"engine" and stored.layers == {"all": {"fp16": 3}}


def test_a_half_written_engine_is_not_found(tmp_path):
    engine = store(tmp_path, KEY, b"engine", {})
    engine.path.unlink()
    assert engines_of(tmp_path, KEY.graph_sha256) == []
    engine.path.write_bytes(b"engine")
    engine.path.with_suffix(".json").write_text('{"format": 1, "gra')
    assert engines_of(tmp_path, KEY.graph_sha256) == []


def test_a_changed_engine_is_refused(tmp_path):
    engine = store(tmp_path, KEY, b"engine", {})
    engine.path.write_bytes(b"other")
    with pytest.raises(PolcError, match="is damaged or replaced"):
        engine.read()
    engine.path.unlink()
    with pytest.raises(PolcError, match="cannot be read .*: build it again"):
        engine.read()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format is 2, expected 1"),
        ({"variant": "onnx"}, "variant is 'onnx', known are"),
        ({"graph_sha256": "../x"}, "graph_sha256 is not a SHA-256"),
        ({"gpu": None}, "gpu is missing"),
        ({"tf32": 1}, "tf32 is not usable"),
        ({"shapes": {"image": {"min": [1], "opt": [1], "max": [1, 2]}}}, "image is not a range of shapes"),
        ({"shapes": {"image": {"min": ["a"], "opt": [1], "max": [1]}}}, "image is not a range of shapes"),
    ],
)
def test_a_sidecar_that_does_not_fit_is_refused_with_its_field(tmp_path, change, reason):
    engine = store(tmp_path, KEY, b"engine", {})
    sidecar = engine.path.with_suffix(".json")
    text = json.dumps({**json.loads(sidecar.read_text()), **change})
    with pytest.raises(BundleError, match=reason):
        parse_sidecar(text, engine.path)
    sidecar.write_text(text)
    assert engines_of(tmp_path, KEY.graph_sha256) == []


def test_the_cache_is_where_it_was_asked_for():
    assert cache_folder(Path("x"), {"POLC_CACHE": "y"}) == Path("x")
    assert cache_folder(None, {"POLC_CACHE": "/y"}) == Path("/y/engines")


@pytest.mark.skipif("sys.platform == 'win32'", reason="Windows has other places")
def test_by_default_it_is_in_the_platforms_cache():
    assert cache_folder(None, {"HOME": "/home/a"}) == Path("/home/a/.cache/polc/engines")
    assert cache_folder(None, {"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/polc/engines")


def test_engines_are_tried_with_the_plugin_first_and_small_ones_before_large(tmp_path):
    large = {"image": Range((1, 3, 192, 192), (1, 3, 512, 768), (8, 3, 1920, 1920))}
    changes = ({"ranges": large}, {}, {"tf32": True}, {"variant": "tensorrt-plugin", "ranges": large})
    engines = [store(tmp_path, dataclasses.replace(KEY, **change), b"e", {}) for change in changes]
    big, small, tf32, plugin = engines
    assert preferred(engines, with_plugin=True) == [plugin, small, big, tf32]
    assert preferred(engines, with_plugin=False) == [small, big, tf32]


def test_what_engines_are_for_is_told_even_where_each_part_of_it_is_there(tmp_path):
    targets = (Target("A", "9.0", "8.6.0"), Target("B", "8.0", "10.3"))
    engines = [store(tmp_path, dataclasses.replace(KEY, target=t), b"e", {}) for t in targets]
    told = refusal(engines, Target("A", "8.0", "8.6.0"))
    assert "A (compute capability 9.0) with TensorRT 8.6.0; B" in told and told.endswith("TensorRT 8.6.0")
