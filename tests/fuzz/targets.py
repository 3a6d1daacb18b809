"""What is fuzzed. A target takes any bytes and may end in nothing but a return or one of its errors.

`TARGETS` names them. Checks that keep a fuzzer out of what lies behind them (a CRC, a hash, a checksum) are
met for it where a target's docstring says so: an attacker can do that too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from chunks import split
from small_codec import LIMITS, small_codec, small_tables

from polc_runtime import Codec
from polc_runtime.bitstream import rans, rans_reference
from polc_runtime.bitstream.calibration import Calibration
from polc_runtime.bitstream.container import Container
from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.bundle import Bundle, Manifest
from polc_runtime.codec import latent
from polc_runtime.errors import BundleError, ImageError, PolcError

SCRATCH = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where targets that need files make them; None for the usual place."""

ARRAYS = ("hyper_cdf", "hyper_lengths", "hyper_offsets", "medians", "latent_cdf", "latent_lengths",
          "latent_offsets", "scale_table")  # fmt: skip


def sealed(body: bytes) -> bytes:
    """A body with the CRC-32 that a `.polc` file ends with."""
    return body + struct.pack("<I", zlib.crc32(body))


def container(data: bytes) -> None:
    """`Container.unpack`, of the bytes and of the bytes with their CRC; what is read can be written again."""
    for candidate in (data, sealed(data)):
        with contextlib.suppress(PolcError):
            read = Container.unpack(candidate)
            if Container.unpack(read.pack()) != read:
                raise AssertionError("a file that was read is written as another one")


def decode(data: bytes) -> None:
    """The whole decoder on a whole file, with and without its CRC made good; checksums of symbols count."""
    for candidate in (data, sealed(data)):
        with contextlib.suppress(PolcError):
            _codec().decode(candidate)


def decode_parts(data: bytes) -> None:
    """The whole decoder on a header and streams, with the symbols' checksums switched off.

    Three bytes for the image's size and quality, then z, y and calibration as `chunks`.
    """
    seed = Container.unpack(seed_file())
    height, width, quality = (data + bytes(3))[:3]
    header = dataclasses.replace(
        seed.header, height=height + 1, width=width + 1, quality_code=256 + 8 * quality
    )
    z, calibration, y = split(data[3:], 3)
    with _no_checksums(), contextlib.suppress(PolcError):
        read = Calibration.unpack(calibration, len(seed.checksums) - 1) if calibration else None
        sums = (0,) * len(seed.checksums)
        _codec().decode(Container(header, z, y, sums, read).pack(LIMITS))


def rans_streams(data: bytes) -> None:
    """A stream against a table, both from the bytes: the native decoder and the plain one end alike."""
    table_bytes, index_bytes, stream = split(data, 3)
    table = _table(table_bytes)
    if table is None:
        return
    indexes = np.frombuffer(index_bytes, np.uint8).astype(np.int32) % (table.rows + 1)
    ends = [_decoded(make, stream, table, indexes) for make in (rans.Decoder, rans_reference.Decoder)]
    if ends[0] != ends[1]:
        raise AssertionError(f"the native coder ends with {ends[0]!r}, the plain one with {ends[1]!r}")


def rans_binding(data: bytes) -> None:
    """The native module itself, past the checks of the Python around it."""
    if rans._rans is None:
        raise RuntimeError("the native coder is not built")
    shape, cdf, lengths, offsets, indexes, stream = split(data, 6)
    rows, width = (shape + b"\1\1")[:2]
    with contextlib.suppress(rans._rans.RansError):
        tables = rans._rans.Tables(
            _int32(cdf, rows * width).reshape(rows, width), _int32(lengths, rows), _int32(offsets, rows)
        )
        decoder = rans._rans.Decoder(tables, stream)
        wanted = _int32(indexes, len(indexes) // 4)
        decoder.decode(wanted, np.empty_like(wanted))
        decoder.finish()


def tables(data: bytes) -> None:
    """`EntropyTables.parse` of an archive."""
    with contextlib.suppress(BundleError):
        EntropyTables.parse(data, "entropy.npz")


def tables_arrays(data: bytes) -> None:
    """`EntropyTables.parse` of eight arrays in a sound archive."""
    tables(_archive({f"{name}.npy": part for name, part in zip(ARRAYS, split(data, 8), strict=True)}))


def manifest(data: bytes) -> None:
    """`Manifest.from_json`; what is read can be written again."""
    with contextlib.suppress(BundleError):
        read = Manifest.from_json(data.decode("utf-8", "surrogateescape"))
        if Manifest.from_json(read.to_json()) != read:
            raise AssertionError("a manifest that was read is written as another one")


ENTROPY_HASH = "e" * 64
"""Stands in a manifest for the hash of the entropy tables."""


def bundle(data: bytes) -> None:
    """`Bundle.load` of a folder, all that is read of it, and a codec on it; the tables' hash is made good."""
    text, entropy = split(data, 2)
    digest = hashlib.sha256(entropy).hexdigest().encode()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, contextlib.suppress(PolcError):
        Path(folder, "manifest.json").write_bytes(text.replace(ENTROPY_HASH.encode(), digest))
        Path(folder, "entropy.npz").write_bytes(entropy)
        read = Bundle.load(folder)
        json.dumps(read.describe())
        read.entropy_tables()
        for graph in read.manifest.graphs:
            with contextlib.suppress(BundleError):
                read.graph(graph.name, graph.precision)


def checkpoint_safetensors(data: bytes) -> None:
    """`polc.load_checkpoint` of a `.safetensors` file."""
    _load_checkpoint(".safetensors", data)


def checkpoint_header(data: bytes) -> None:
    """`polc.load_checkpoint` of a `.safetensors` file with this header, and zeros as its tensors."""
    body = bytes(min(_announced(data), 1 << 16))
    _load_checkpoint(".safetensors", struct.pack("<Q", len(data)) + data + body)


def checkpoint_metadata(data: bytes) -> None:
    """`polc.load_checkpoint` of a `.safetensors` file with these bytes as its metadata, and no tensor."""
    header = json.dumps({"__metadata__": {"polc": data.decode("utf-8", "replace")}}).encode()
    _load_checkpoint(".safetensors", struct.pack("<Q", len(header)) + header)


def checkpoint_torch(data: bytes) -> None:
    """`polc.load_checkpoint` of a file that torch.save might have written."""
    _load_checkpoint(".pth.tar", data)


def checkpoint_pickle(data: bytes) -> None:
    """`polc.load_checkpoint` of a sound archive with these bytes as its pickle, and two tensors' values."""
    values = {"a/data/0": bytes(24), "a/data/1": bytes(8)}  # as large as the seed's tensors
    entries = {"a/data.pkl": data, "a/byteorder": b"little", **values, "a/version": b"3\n"}
    _load_checkpoint(".pth.tar", _archive(entries))


def image(data: bytes) -> None:
    """`read_image`."""
    from polc_runtime.pictures.images import read_image

    with contextlib.suppress(ImageError):
        read_image(data, LIMITS)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        container, decode, decode_parts, rans_streams, rans_binding, tables, tables_arrays, manifest,
        bundle, checkpoint_safetensors, checkpoint_header, checkpoint_metadata, checkpoint_torch,
        checkpoint_pickle, image,
    )
}  # fmt: skip


@cache
def _codec() -> Codec:
    return small_codec()


@cache
def seed_file() -> bytes:
    """A real file of the small codec."""
    pixels = np.random.default_rng(7).integers(0, 256, (40, 50, 3), np.uint8)
    return _codec().compress(pixels, 4.5)


@contextlib.contextmanager
def _no_checksums() -> Iterator[None]:
    """Has every checksum of symbols be 0: they have 16 bits, which an attacker finds in 65536 tries."""
    checksum, latent.symbol_checksum = latent.symbol_checksum, lambda _: 0
    try:
        yield
    finally:
        latent.symbol_checksum = checksum


def _int32(data: bytes, count: int) -> np.ndarray:
    return np.frombuffer(data[: 4 * count].ljust(4 * count, b"\0"), "<i4").astype(np.int32)


def _table(data: bytes) -> CdfTable | None:
    """A table from the bytes, if they make one: up to three choose a ready one, more are widths."""
    if len(data) < 4:
        return (small_tables_once().hyper, small_tables_once().latent)[len(data) % 2]
    widths = np.frombuffer(data[: len(data) & ~1], "<u2").astype(np.int64)
    cdf = np.concatenate([[0], np.cumsum(widths)])
    cdf[-1] = 65536
    try:
        return CdfTable(cdf[None].astype(np.int32), np.array([len(cdf)]), np.array([-int(data[0])]))
    except BundleError:
        return None


@cache
def small_tables_once() -> EntropyTables:
    """Tables of the small codec."""
    return small_tables()


def _decoded(make: Callable[..., Any], stream: bytes, table: CdfTable, indexes: np.ndarray) -> Any:
    """The symbols, or that there was an error."""
    try:
        decoder = make(stream, table)
        symbols = list(map(int, decoder.decode(indexes)))
        decoder.finish()
    except PolcError:
        return None
    return symbols


def _archive(entries: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in entries.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return archive.getvalue()


def _announced(header: bytes) -> int:
    """Bytes of tensors that a safetensors header speaks of: another number would be refused at once."""
    try:
        ends = [entry["data_offsets"][1] for entry in json.loads(header).values() if "data_offsets" in entry]
        return max((end for end in ends if isinstance(end, int) and end > 0), default=0)
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return 0


def _load_checkpoint(suffix: str, data: bytes) -> None:
    from polc import load_checkpoint

    with tempfile.NamedTemporaryFile(dir=SCRATCH, suffix=suffix) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.write(data)
        file.flush()
        with contextlib.suppress(PolcError):
            load_checkpoint(file.name)
