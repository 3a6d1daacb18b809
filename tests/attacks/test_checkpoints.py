"""Hostile checkpoints: nothing in them runs, and what they announce is compared before it takes memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest

from polc_runtime import CheckpointError

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save  # noqa: E402

from polc import (  # noqa: E402
    Codec,  # noqa: E402
    load_checkpoint,
    preset,
)
from polc.checkpoint import Checkpoint, save_checkpoint  # noqa: E402

TENSORS = {"g_a0.weight": torch.zeros(2, 3)}


def refused(path):
    started = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message and len(message) < 500
    assert time.process_time() - started < 10
    return message


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def write_zip(path, planted):
    torch.save({"state_dict": {**TENSORS, "x": planted}}, path)


def write_old(path, planted):
    torch.save({"state_dict": {**TENSORS, "x": planted}}, path, _use_new_zipfile_serialization=False)


def write_pickle(path, planted):
    path.write_bytes(pickle.dumps({"state_dict": planted}))


def write_as_safetensors(path, planted):
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(planted))


@pytest.mark.parametrize("write", [write_zip, write_old, write_pickle, write_as_safetensors])
def test_a_pickle_never_runs(tmp_path, write):
    marker = tmp_path / "marker"
    write(tmp_path / "evil.pth", Command(f"touch {marker}"))
    (path,) = tmp_path.iterdir()
    refused(path)
    assert not marker.exists()
    with path.open("rb") as file:
        if write is write_pickle:
            pickle.load(file)  # that the file is as evil as it should be
    assert marker.exists() == (write is write_pickle)


def test_a_pickle_that_reads_an_attribute_of_a_module_is_refused(tmp_path):
    """`torch.serialization.os.system` by a dotted name, without an import of its own."""
    dotted = b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93\x8c\x04true\x85R."
    (tmp_path / "a.pth").write_bytes(dotted)
    refused(tmp_path / "a.pth")


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**64 - 1),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        struct.pack("<Q", 0),
        safetensors(b"[" * 100_000),
        safetensors({"a": tensor([2**62, 4], 0, 0)}),
        safetensors({"a": tensor([2**40], 0, 2**42)}),
        safetensors({"a": tensor([4], 16, 0)}, bytes(16)),
        safetensors({"a": tensor([4], 0, 16), "b": tensor([4], 8, 24)}, bytes(24)),
        safetensors({"a": tensor([4], -16, 0)}, bytes(16)),
        safetensors({"__metadata__": {"polc": 3}}),
    ],
)
def test_a_header_of_extreme_numbers_is_refused(tmp_path, data):
    (tmp_path / "a.safetensors").write_bytes(data)
    refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "metadata",
    [
        "3",
        "[]",
        '"config"',
        "null",
        "[" * 100_000,
        "NaN",
        '{"config": 1e999}',
        '{"config": 2.0}',
        '{"config": []}',
        '{"config": {}, "config": {}}',
    ],
)
def test_metadata_that_are_no_object_are_refused(tmp_path, metadata):
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS, {"polc": metadata}))
    refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"dims": [10**9] * 4},
        {"dims": [65536] * 4},
        {"dims": [16, 16, 16, 32.0]},
        {"dims": [16, 16, 16, True]},
        {"dims": "abcd"},
        {"dims": 3},
        {"depths": [10**9, 1, 1, 1]},
        {"depths": [64] * 4},
        {"depths": [-1, 1, 1, 1]},
        {"head_dim": 0},
        {"head_dim": None},
        {"kernel_size": 2**31 - 1},
        {"kernel_size": 255},
        {"mlp_ratio": 1e300},
        {"mlp_ratio": -1},
        {"levels": 2.5},
        {"context_width": 10**12},
        {"context_width": 65536, "entropy_width": 65536},
        {"drop_path": 7},
    ],
    ids=str,
)
def test_dimensions_that_announce_too_much_take_no_memory(tmp_path, change):
    """In a file of 300 bytes. The model's weights are compared with the file's before they are made."""
    document = {"config": {**preset("polc-tiny").to_dict(), **change}, "tasks": {}}
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS, {"polc": json.dumps(document)}))
    before = resident()
    refused(tmp_path / "a.safetensors")
    assert resident() - before < 2**29


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("families", [{"a": "no such"}, {"../a": "convnext_tiny"}, {"a": 3}, ["a"], 3, None])
def test_tasks_that_are_no_tasks_are_refused(tmp_path, families):
    document = {"config": preset("polc-tiny").to_dict(), "tasks": families}
    (tmp_path / "a.safetensors").write_bytes(save(TENSORS, {"polc": json.dumps(document)}))
    refused(tmp_path / "a.safetensors")


def saved(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def deflated(data):
    """The same archive, compressed: a tensor of zeros takes a thousandth."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return out.getvalue()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"g_a0.weight": torch.zeros(1).expand(10**9)}, "other kinds than plain weights: g_a0.weight"),
        ({"a": torch.zeros(1).expand(2**20, 2**20, 2**20)}, "other kinds than plain weights: a"),
        ({"a": torch.zeros(3).to_sparse()}, "other kinds than plain weights: a"),
        ({"a": torch.zeros(10**9, device="meta")}, "other kinds than plain weights: a"),
        ({"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "kinds than plain weights: a"),
        ({3: torch.zeros(1)}, "holds no state_dict of tensors"),
        ({"a": "text"}, "holds no state_dict of tensors"),
        ([torch.zeros(1)], "holds no state_dict of tensors"),
        (torch.zeros(1), "holds no state_dict of tensors"),
    ],
)
def test_tensors_that_are_no_plain_weights_are_refused(tmp_path, state, said):
    (tmp_path / "a.pth").write_bytes(saved(state))
    assert said in refused(tmp_path / "a.pth")


@pytest.fixture(scope="module")
def with_tables(tmp_path_factory):
    """The tensors and metadata of a checkpoint with entropy tables."""
    path = tmp_path_factory.mktemp("tables") / "a.safetensors"
    codec = Codec(preset("polc-tiny"))
    save_checkpoint(path, codec, tables=Checkpoint(codec).tables()[0])
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize(
    ("key", "dtype", "said"),
    [
        ("tables.medians", torch.bfloat16, "stored entropy tables are not usable"),
        ("tables.medians", torch.float8_e4m3fn, "a type that weights never have: tables.medians"),
        ("context.channel.0.0.bias", torch.complex64, "a type that weights never have: context.channel.0"),
    ],
)
def test_values_of_types_that_weights_never_have_are_refused(tmp_path, with_tables, key, dtype, said):
    tensors, metadata = with_tables
    changed = {**tensors, key: tensors[key].to(dtype)}
    (tmp_path / "a.safetensors").write_bytes(save(changed, metadata))
    assert said in refused(tmp_path / "a.safetensors")


def test_an_archive_that_inflates_is_refused(tmp_path):
    bomb = deflated(saved({"a": torch.zeros(2**22)}))
    assert len(bomb) < 2**16
    (tmp_path / "a.pth").write_bytes(bomb)
    assert "compressed" in refused(tmp_path / "a.pth")


@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_a_file_cut_anywhere_is_refused(tmp_path, suffix):
    data = save(TENSORS) if suffix == ".safetensors" else saved(TENSORS)
    path = tmp_path / f"a{suffix}"
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        refused(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").mkdir()
    refused(tmp_path / f"a{suffix}")
    os.mkfifo(tmp_path / f"b{suffix}")
    refused(tmp_path / f"b{suffix}")
