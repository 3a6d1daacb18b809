"""Makes the corpus that fuzzing starts from: real files, a folder for each target; the same ones every time.

python tests/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from chunks import join
from PIL import Image
from small_codec import small_codec, small_manifest, small_tables
from targets import ARRAYS, ENTROPY_HASH, seed_file

from polc_runtime.bitstream import rans
from polc_runtime.bitstream.container import Container
from polc_runtime.bundle import Bundle
from polc_runtime.pictures.images import OUTPUT_FORMATS, encode_image

SIZES = ((1, 1), (40, 50), (193, 200))
QUALITIES = (1.0, 4.5, 8.0)


def seeds() -> dict[str, list[bytes]]:
    """The corpus: inputs by target."""
    files = list(_files())
    return {
        "container": [part for file in files for part in (file, file[:-4])],
        "decode": [part for file in files for part in (file, file[:-4])],
        "decode_parts": [_parts(file) for file in files],
        "rans_streams": list(_streams()),
        "rans_binding": list(_bindings()),
        "rans_native": list(_native()),
        **_tables(),
        "manifest": list(_manifests()),
        "bundle": [join([text, _entropy()]) for text in _manifests()],
        **_checkpoints(),
        "image": [encode_image(_picture(9, 7), suffix) for suffix in OUTPUT_FORMATS]
        + [_grey(), _animation()],
    }


def write(folder: Path) -> int:
    """Writes the corpus; the number of bytes."""
    total = 0
    for target, inputs in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / target / f"seed-{number}").write_bytes(data)
            total += len(data)
    return total


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def _files() -> Iterator[bytes]:
    yield seed_file()
    with small_codec() as codec:
        for (height, width), quality in zip(SIZES, QUALITIES, strict=True):
            yield codec.compress(_picture(height, width) // 8 * 8, quality)


def _parts(file: bytes) -> bytes:
    container = Container.unpack(file)
    header = container.header
    size = [(header.height - 1) % 256, (header.width - 1) % 256, (header.quality_code - 256) // 8]
    calibration = container.calibration.pack() if container.calibration else b""
    return bytes(size) + join([container.z, calibration, container.y])


def _streams() -> Iterator[bytes]:
    random = np.random.default_rng(1)
    for number, table in enumerate((small_tables().hyper, small_tables().latent)):
        rows = random.integers(0, table.rows, 60).astype(np.uint8)
        symbols = random.integers(-12, 13, 60)
        yield join([bytes(number), rows.tobytes(), rans.encode(symbols, rows.astype(np.int32), table)])
    widths = np.array([30000, 20000, 15000, 536], "<u2").tobytes()
    yield join([widths, bytes(4), struct.pack("<QI", 1 << 31, 5)])


_SMALL = ([[0, 100, 65000, 65536], [0, 30000, 65536, 0]], [4, 3], [-1, 7], [0, 1, 1, 0])
"""CDF, lengths, offsets and some indexes."""


def _bindings() -> Iterator[bytes]:
    for stream in (struct.pack("<Q", 1 << 31), struct.pack("<QII", (1 << 62) + 77, 1, 2)):
        yield join([b"\2\4", *(np.array(values, "<i4").tobytes() for values in _SMALL), stream])


def _native() -> Iterator[bytes]:
    """As rans_fuzzer.cc reads them: a kind, rows, width, what makes the tables, indexes, the stream."""
    cdf, lengths, offsets, indexes = (np.array(values, "<i4").tobytes() for values in _SMALL)
    yield b"\0\2\4" + lengths + offsets + cdf + b"\4" + indexes + struct.pack("<QII", (1 << 62) + 77, 1, 2)
    widths = np.arange(2 * 9, dtype="<u2") * 99
    rows = widths[:9].tobytes() + bytes(4), widths[9:].tobytes() + b"\xff" * 4
    yield b"\1\1\x08" + b"".join(rows) + b"\x06" + bytes([0, 1, 1, 0, 1, 0]) + struct.pack("<QI", 1 << 40, 9)


def _entropy() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        small_tables().save(Path(folder, "entropy.npz"))
        return Path(folder, "entropy.npz").read_bytes()


def _tables() -> dict[str, list[bytes]]:
    data = _entropy()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        arrays = join([archive.read(f"{name}.npy") for name in ARRAYS])
    return {"tables": [data], "tables_arrays": [arrays]}


def _manifests() -> Iterator[bytes]:
    manifest = Bundle.load("nano").manifest
    shorter = dataclasses.replace(manifest, validation=manifest.validation[:2])
    yield shorter.to_json().replace(manifest.entropy_sha256, ENTROPY_HASH).encode()
    yield small_manifest(ENTROPY_HASH).to_json().encode()


def _checkpoints() -> dict[str, list[bytes]]:
    """Checkpoints of one layer: enough for every way of reading, and small."""
    import torch
    from safetensors.torch import save

    from polc import preset

    tensors = {"g_a0.weight": torch.zeros(2, 3), "tables.medians": torch.zeros(2)}
    document = json.dumps({"config": preset("polc-tiny").to_dict(), "tasks": {}})
    ours = save(tensors, {"polc": document})
    length = int.from_bytes(ours[:8], "little")
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    old = io.BytesIO()
    torch.save({"state_dict": tensors}, old, _use_new_zipfile_serialization=False)
    return {
        "checkpoint_safetensors": [ours, save(tensors)],
        "checkpoint_header": [
            ours[8 : 8 + length],
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}}',
        ],
        "checkpoint_metadata": [document.encode()],
        "checkpoint_torch": [buffer.getvalue(), old.getvalue()],
        "checkpoint_pickle": [pickled],
    }


def _grey() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 1000).save(stream, "PNG")
    return stream.getvalue()


def _animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(_picture(5, 6 + number % 1)) for number in range(2)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} bytes")
