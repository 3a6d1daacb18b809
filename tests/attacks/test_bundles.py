"""Hostile bundles: links, pipes, bombs, files from elsewhere; every one ends in a BundleError."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import PEAK_KILOBYTES
from refusals import refused

from polc_runtime import Bundle, Codec
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.bundle import Manifest, find_bundle
from polc_runtime.limits import Limits


@pytest.fixture
def nano(tmp_path):
    """A copy of the packaged bundle."""
    shutil.copytree(find_bundle("nano"), tmp_path / "nano")
    return tmp_path / "nano"


def all_of(folder):
    """Every graph of a bundle; the tables are read too."""
    bundle = Bundle.load(folder)
    bundle.entropy_tables()
    return [bundle.graph(graph.name, graph.precision) for graph in bundle.manifest.graphs]


def rewrite(folder, change):
    """Changes the manifest's document."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def entry(document, name):
    return next(graph for graph in document["graphs"] if graph["name"] == name)


PLACES = ["manifest.json", "entropy.npz", "graphs/synthesis.onnx", "graphs/task_cifar10.onnx"]


def in_place_of(kind, path):
    """Puts something else in a file's place, with the right bytes where it has any."""
    elsewhere = path.parent.parent / f"{path.name}.elsewhere"
    path.rename(elsewhere)
    if kind == "link":
        path.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device", "loop", "nothing"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(nano, place, kind):
    in_place_of(kind, nano / place)
    assert Path(place).name in refused(lambda: all_of(nano))


def test_a_graph_folder_that_leads_elsewhere_is_refused(nano, tmp_path):
    (nano / "graphs").rename(tmp_path / "elsewhere")
    (nano / "graphs").symlink_to(tmp_path / "elsewhere")
    assert "is a link, which may lead out of the bundle" in refused(lambda: all_of(nano))


def test_the_bundle_itself_may_be_a_link(nano, tmp_path):
    (tmp_path / "link").symlink_to(nano)
    assert all_of(tmp_path / "link") == all_of(nano)


@pytest.mark.parametrize("place", PLACES[1:])
def test_a_file_with_another_bit_is_refused(nano, place):
    data = bytearray((nano / place).read_bytes())
    data[len(data) // 2] ^= 1
    (nano / place).write_bytes(data)
    assert "its hash is not the manifest's" in refused(lambda: all_of(nano))


@pytest.mark.parametrize(
    ("place", "limit"),
    [
        ("manifest.json", "max_manifest_bytes"),
        ("entropy.npz", "max_graph_bytes"),
        ("graphs/synthesis.onnx", "max_graph_bytes"),
    ],
)
def test_a_file_that_is_too_large_is_not_read(nano, place, limit):
    """Terabytes, of which the disk holds none."""
    with (nano / place).open("r+b") as file:
        file.truncate(1 << 42)
    tracemalloc.start()
    message = refused(lambda: all_of(nano))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert f"${'POLC_' + limit.upper()}" in message and peak < 2**26


@pytest.mark.parametrize("limit", ["max_manifest_bytes", "max_graph_bytes", "max_table_bytes"])
def test_limits_of_a_bundle_are_the_callers(nano, limit):
    def load():
        Bundle.load(nano, Limits(**{limit: 100})).entropy_tables()

    assert limit in refused(load)


# JSON that is not what it seems.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 500_000, "nested too deeply"),
        ('{"a":' * 500_000, "nested too deeply"),
        ('{"format": [1, 0], "format": [9, 9]}', "'format' is there twice"),
        ('{"tools": {"torch": "1", "torch": "2"}}', "'torch' is there twice"),
        ('{"quality_range": [1, Infinity]}', "Infinity is no number"),
        ('{"quality_range": [-Infinity, NaN]}', "-Infinity is no number"),
        ('{"quality_range": [1, 1e999]}', "'1e999' is too large"),
        (f'{{"format": [{"9" * 5000}]}}', "not JSON"),
        ('{"format": [1, 0]}x', "not JSON"),
        ("\ufeff{}", "not JSON"),
        ("", "not JSON"),
    ],
    ids=[
        "lists",
        "objects",
        "twice",
        "inner",
        "infinite",
        "NaN",
        "overflow",
        "digits",
        "tail",
        "BOM",
        "empty",
    ],
)
def test_json_that_is_more_than_json_is_refused(text, said):
    assert said in refused(lambda: Manifest.from_json(text))


@pytest.mark.parametrize("filler", ["[],", "{},", '"",', "0,"])
def test_a_manifest_of_the_largest_size_takes_little_time_and_memory(tmp_path, filler):
    count = (Limits().max_manifest_bytes - 100) // len(filler)
    (tmp_path / "manifest.json").write_text('{"format": [' + filler * count + "0]}")
    code = f"""
import re, time
from pathlib import Path
from polc_runtime import Bundle, BundleError
started = time.process_time()
try:
    Bundle.load({str(tmp_path)!r})
except BundleError:
    print(time.process_time() - started, {PEAK_KILOBYTES})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.split()
    assert float(seconds) < 2 and int(kilobytes) < 2**20


def test_names_that_no_terminal_can_show_are_shown_escaped(nano):
    def rename(document):
        document["name"] = "a\x1b[2J\ud800\n"
        document["notes"] = ["b\r\x07"]
        entry(document, "task_cifar10")["parameters"] = 10**30

    rewrite(nano, rename)
    done = subprocess.run([sys.executable, "-m", "polc_runtime", "info", str(nano)], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout and b"\x07" not in done.stdout and b"\\x1b" in done.stdout


# The archive of entropy tables.


def archive(entries, **options):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return data.getvalue()


def arrays(nano):
    with zipfile.ZipFile(nano / "entropy.npz") as file:
        return {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}


def peak_of(load):
    """The message that refuses, and the most memory it took."""
    tracemalloc.start()
    message = refused(load)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return message, peak


def test_an_array_that_inflates_beyond_the_limit_is_refused(nano):
    bomb = archive({**arrays(nano), "medians": bytes(1 << 27)})
    message, peak = peak_of(lambda: EntropyTables.parse(bomb, "a"))
    assert "max_table_bytes" in message and peak < 2**22


def test_an_array_that_inflates_to_more_than_it_announces_is_cut_off(nano):
    """The sizes in an archive's directory may lie: 256 MB behind 200 bytes."""
    bomb = archive({**arrays(nano), "medians": bytes(1 << 28)})
    lying = bomb.replace(struct.pack("<I", 1 << 28), struct.pack("<I", 200))
    assert lying != bomb
    _, peak = peak_of(lambda: EntropyTables.parse(lying, "a"))
    assert peak < 2**23


def test_paths_inside_the_archive_are_never_made(nano, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outside = archive({**arrays(nano), "../../escaped": b"x", "/tmp/polc-escaped": b"x"})
    EntropyTables.parse(outside, "a")
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/polc-escaped.npy").exists()


def test_a_pickle_in_the_archive_is_never_run(nano, tmp_path):
    marker = tmp_path / "marker"
    stored = np.empty(8, object)
    stored[:] = [Planted(marker)] * 8
    data = io.BytesIO()
    np.save(data, stored, allow_pickle=True)
    refused(lambda: EntropyTables.parse(archive({**arrays(nano), "medians": data.getvalue()}), "a"))
    assert not marker.exists()


@dataclasses.dataclass
class Planted:
    """Makes a file when it is unpickled."""

    marker: Path

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize(
    "text", ["(" * 9000, "[" * 9000, "9**9**9", "__import__('os').getpid()", "{'shape': (1,)}"]
)
def test_an_array_header_is_data_and_not_code(nano, text):
    header = text.encode().ljust(9000)
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    refused(lambda: EntropyTables.parse(archive({**arrays(nano), "medians": array}), "a"))


# Graphs that take their weights from somewhere else.


def with_graph(folder, name, model):
    """Puts another model in a graph's place, with its hash in the manifest."""
    path = folder / f"graphs/{name}.onnx"
    path.write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    rewrite(folder, lambda document: entry(document, name).update(sha256=digest))


def external(location, in_attribute):
    """A model one of whose tensors lies in another file."""
    onnx = pytest.importorskip("onnx")
    helper, proto = onnx.helper, onnx.TensorProto
    tensor = proto(name="w", data_type=proto.FLOAT, dims=[4], data_location=proto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, proto.FLOAT, [4]) for name in "xy")
    nodes, stored = [helper.make_node("Add", ["x", "w"], ["y"])], [tensor]
    if in_attribute:
        nodes, stored = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes], []
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    ).SerializeToString()


@pytest.mark.parametrize("in_attribute", [False, True])
@pytest.mark.parametrize(
    "location", ["secret.bin", "../secret.bin", "{here}/secret.bin", "*/_ORT_MEM_ADDR_/*"]
)
def test_a_graph_that_reads_another_file_is_refused(nano, tmp_path, monkeypatch, location, in_attribute):
    """ONNX Runtime would look for it in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(struct.pack("<4f", 1, 2, 3, 4))
    with_graph(nano, "analysis", external(location.format(here=tmp_path), in_attribute))
    with Codec.load(nano) as codec:
        message = refused(lambda: codec.compress(np.zeros((8, 8, 3), np.uint8)))
    assert "takes values from another file" in message


@pytest.mark.parametrize(
    "key", [b"\x0a\x08", b"\x0a\x88\x00", b"\x8a\x00\x08", b"\x8a\x80\x00\x88\x80\x80\x00"]
)
def test_no_way_to_write_the_key_of_another_file_is_missed(nano, key):
    """Protobuf reads numbers that are longer than they need to be."""
    model = external("secret.bin", True)
    assert b"\x0a\x08location" in model
    with_graph(nano, "synthesis", model.replace(b"\x0a\x08location", key + b"location"))
    assert "takes values from another file" in refused(lambda: all_of(nano))


@pytest.mark.parametrize("size", [0, 1, 1000, -1])
def test_a_graph_that_is_no_model_is_refused_when_it_runs(nano, size):
    data = (nano / "graphs/analysis.onnx").read_bytes()
    with_graph(nano, "analysis", data[:size])
    with Codec.load(nano) as codec:
        assert "analysis" in refused(lambda: codec.compress(np.zeros((8, 8, 3), np.uint8)))


def test_a_hash_proves_that_a_bundle_is_undamaged_and_not_who_made_it(nano):
    """What docs/security.md says of hashes: whoever changes a file can change the manifest as well."""
    before = all_of(nano)
    with_graph(nano, "synthesis", (nano / "graphs/analysis.onnx").read_bytes())
    assert all_of(nano) != before, "the other graph is taken for the bundle's own"
