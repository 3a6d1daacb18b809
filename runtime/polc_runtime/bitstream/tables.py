"""The entropy tables of a bundle: 16-bit CDFs of the hyper-latent and the latent, and their file."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, NotFiniteError, PolcError
from ..files.inputs import read_plain_file
from ..limits import DEFAULT_LIMITS, Limits
from .scale_search import ScaleSearch

PRECISION = 16
"""Bits of a CDF: each row ends at 2**16."""

_FIELDS = {
    "hyper_cdf": ("<i4", 2),
    "hyper_lengths": ("<i4", 1),
    "hyper_offsets": ("<i4", 1),
    "medians": ("<f4", 1),
    "latent_cdf": ("<i4", 2),
    "latent_lengths": ("<i4", 1),
    "latent_offsets": ("<i4", 1),
    "scale_table": ("<f4", 1),
}


# What zipfile and numpy raise for missing, damaged or hostile files.
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True, eq=False)
class CdfTable:
    """Rows of cumulative frequencies, one for each kind of symbol.

    Row r codes the values offset..offset + length - 3 with its first length - 2 intervals, and
    every other value as an escape with its last one. The arrays are copied and made read-only.

    Attributes:
        cdf: int32 [n, L]; row r starts at 0, rises strictly over its `lengths[r]` entries to
            65536, and is zero after them.
        lengths: int32 [n], 2..L.
        offsets: int32 [n], the symbol of each row's first interval.

    Raises:
        BundleError: If any of this does not hold.
    """

    cdf: NDArray[np.int32]
    lengths: NDArray[np.int32]
    offsets: NDArray[np.int32]

    def __post_init__(self) -> None:
        for name, ndim in (("cdf", 2), ("lengths", 1), ("offsets", 1)):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), "<i4", ndim))
        _check_cdf(self.cdf, self.lengths, self.offsets)

    @property
    def rows(self) -> int:
        """Number of rows; row indexes are 0..rows - 1."""
        return int(self.cdf.shape[0])


@dataclass(frozen=True, eq=False)
class EntropyTables:
    """All that turns decoded numbers into symbols, made once at export and never recomputed.

    Attributes:
        hyper: the factorised prior, a row for each channel of the hyper-latent.
        medians: float32 [N], added to the hyper-latent's symbols.
        latent: the Gaussian conditional, a row for each entry of `scale_table`.
        scale_table: float32 [S], positive and ascending.

    Raises:
        BundleError: If the parts do not fit together.
    """

    hyper: CdfTable
    medians: NDArray[np.float32]
    latent: CdfTable
    scale_table: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("medians", "scale_table"):
            object.__setattr__(self, name, _frozen(name, getattr(self, name), "<f4", 1))
            if not np.isfinite(getattr(self, name)).all():
                raise BundleError(f"entropy tables: {name} holds values that are not finite")
        if len(self.medians) != self.hyper.rows:
            raise BundleError(
                f"entropy tables: {len(self.medians)} medians for {self.hyper.rows} rows of hyper_cdf"
            )
        if len(self.scale_table) != self.latent.rows:
            raise BundleError(
                f"entropy tables: {len(self.scale_table)} scales for {self.latent.rows} rows of latent_cdf"
            )
        if self.scale_table[0] <= 0 or not (np.diff(self.scale_table) > 0).all():
            raise BundleError("entropy tables: scale_table is not positive and ascending")

    def indexes(self, scales: NDArray[Any]) -> NDArray[np.int32]:
        """Row of the latent's table for each scale: the first entry >= scale, the last if there is none.

        Args:
            scales: any shape; taken as float32.

        Raises:
            NotFiniteError: a scale is not finite.
        """
        scales = np.asarray(scales, dtype=np.float32)
        if not np.isfinite(scales).all():
            raise NotFiniteError("the model's scales are not finite: the file or the bundle is wrong")
        return self._search.find(scales)

    @cached_property
    def _search(self) -> ScaleSearch:
        return ScaleSearch(self.scale_table)

    def hyper_indexes(self, h: int, w: int) -> NDArray[np.int32]:
        """Row of the hyper-latent's table for each symbol of z [N, h, w], flattened: its channel."""
        return np.repeat(np.arange(self.hyper.rows, dtype=np.int32), h * w)

    def save(self, path: str | Path) -> None:
        """Write the tables as a compressed npz; equal tables give equal bytes."""
        arrays = {
            "hyper_cdf": self.hyper.cdf,
            "hyper_lengths": self.hyper.lengths,
            "hyper_offsets": self.hyper.offsets,
            "medians": self.medians,
            "latent_cdf": self.latent.cdf,
            "latent_lengths": self.latent.lengths,
            "latent_offsets": self.latent.offsets,
            "scale_table": self.scale_table,
        }
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **{name: arrays[name].astype(_FIELDS[name][0]) for name in _FIELDS})

    @classmethod
    def load(cls, path: str | Path, limits: Limits = DEFAULT_LIMITS) -> EntropyTables:
        """Read what `save` wrote, from a plain file; as `parse`."""
        try:
            data = read_plain_file(Path(path), limits, "max_table_bytes")
        except PolcError as error:
            raise BundleError(f"{error}; it cannot be read as entropy tables") from None
        return cls.parse(data, str(path), limits)

    @classmethod
    def parse(cls, data: bytes, name: str, limits: Limits = DEFAULT_LIMITS) -> EntropyTables:
        """Read what `save` wrote; nothing is unpickled and no announced size is trusted.

        Args:
            data: the file's bytes.
            name: what messages call it.
            limits: the largest array.

        Raises:
            BundleError: If it is not such a set of tables.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                found = {field: _read_array(archive, field, limits) for field in _FIELDS}
            return cls(
                hyper=CdfTable(found["hyper_cdf"], found["hyper_lengths"], found["hyper_offsets"]),
                medians=found["medians"],
                latent=CdfTable(found["latent_cdf"], found["latent_lengths"], found["latent_offsets"]),
                scale_table=found["scale_table"],
            )
        except BundleError as error:
            raise BundleError(f"{name}: {error}") from None
        except _UNREADABLE as error:
            raise BundleError(f"{name} cannot be read as entropy tables: {error}") from None


def _frozen(name: str, value: Any, dtype: str, ndim: int) -> NDArray[Any]:
    array = np.array(value)
    if array.ndim != ndim or array.size == 0:
        raise BundleError(f"entropy tables: {name} should have {ndim} dimensions, got shape {array.shape}")
    kind = np.dtype(dtype).kind
    if array.dtype.kind != kind and not (kind == "i" and array.dtype.kind == "u"):
        raise BundleError(f"entropy tables: {name} should be {np.dtype(dtype)}, got {array.dtype}")
    if kind == "i" and (array.max() > 2**31 - 1 or array.min() < -(2**31)):
        raise BundleError(f"entropy tables: {name} does not fit int32")
    array = np.ascontiguousarray(array, dtype=np.dtype(dtype).newbyteorder("="))
    array.setflags(write=False)
    return array


def _check_cdf(cdf: NDArray[np.int32], lengths: NDArray[np.int32], offsets: NDArray[np.int32]) -> None:
    n, width = cdf.shape
    if lengths.shape != (n,) or offsets.shape != (n,):
        raise BundleError(
            f"entropy tables: {n} CDF rows, but {len(lengths)} lengths and {len(offsets)} offsets"
        )
    _refuse_rows(f"a length outside 2..{width}", (lengths < 2) | (lengths > width))
    last = lengths[:, None] - 1
    column = np.arange(width)[None, :]
    _refuse_rows("a CDF that does not start at 0", cdf[:, 0] != 0)
    _refuse_rows("a CDF that does not end at 65536", np.take_along_axis(cdf, last, 1)[:, 0] != 1 << PRECISION)
    # int64: the steps of hostile rows may overflow int32.
    flat = (np.diff(cdf.astype(np.int64), axis=1) <= 0) & (column[:, 1:] <= last)
    _refuse_rows("a CDF that does not rise strictly", flat.any(axis=1))
    _refuse_rows("something other than zeros after its CDF", ((cdf != 0) & (column > last)).any(axis=1))
    # The largest value is offset + length - 3.
    _refuse_rows("an offset too large", offsets.astype(np.int64) + lengths > 2**31 - 1)


def _refuse_rows(what: str, wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        raise BundleError(f"entropy tables: row {int(np.argmax(wrong))} has {what}")


def _read_array(archive: zipfile.ZipFile, name: str, limits: Limits) -> NDArray[Any]:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise BundleError(f"the entry {name} is missing") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{name} is neither stored nor deflated")
    if problem := limits.bytes_problem("max_table_bytes", info.file_size):
        raise BundleError(f"{name} {problem}")
    with archive.open(info) as entry:
        # Without a size, zipfile inflates all there is before it cuts that to the announced size.
        file = io.BytesIO(entry.read(info.file_size))
    shape, fortran, dtype = _read_header(file, name)
    expected, ndim = _FIELDS[name]
    if dtype != np.dtype(expected) or len(shape) != ndim or fortran:
        raise BundleError(f"{name} should be {expected} with {ndim} dimensions, got {dtype} {shape}")
    body = file.read()
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise BundleError(f"{name} has {len(body)} bytes, too many or too few for its shape {shape}")
    return np.frombuffer(body, dtype=dtype).reshape(shape)


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise BundleError(f"{name} is written in npy version {version}, expected (1, 0)")
    try:
        return np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # its parser lets several kinds through
        raise BundleError(f"{name} has no readable npy header: {error}") from None
