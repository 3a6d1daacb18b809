"""What identifies a codec: hashes over its weights and tables, under official names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polc_runtime.bitstream.tables import CdfTable, EntropyTables

from .families.tinylic.codec import Codec
from .families.tinylic.keymap import to_official

DECODING_PREFIXES = ("InverseHyperGain", "h_s", "sc_transform_", "cc_transforms.", "entropy_parameters_")
"""Official names of the weights that decide how symbols decode."""


def _digest(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """SHA-256 over name, shape and little-endian values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        kind = "<i4" if value.dtype.kind in "iu" else "<f4"
        digest.update(f"{name} {','.join(map(str, value.shape))} {kind}\n".encode())
        digest.update(np.ascontiguousarray(value, dtype=kind).tobytes())
    return digest.digest()


def _weights(codec: Codec) -> dict[str, NDArray[Any]]:
    state = {name: value.detach().cpu() for name, value in codec.named_parameters()}
    return {name: value.numpy() for name, value in to_official(state).items()}


def _table_arrays(prefix: str, table: CdfTable) -> dict[str, NDArray[Any]]:
    return {
        f"{prefix}._quantized_cdf": table.cdf[:, : int(table.lengths.max())],
        f"{prefix}._cdf_length": table.lengths,
        f"{prefix}._offset": table.offsets,
    }


def fingerprint(codec: Codec, tables: EntropyTables) -> bytes:
    """SHA-256 over what decoding depends on: tables, medians, hyper-synthesis and context weights."""
    tensors = {k: v for k, v in _weights(codec).items() if k.startswith(DECODING_PREFIXES)}
    tensors |= _table_arrays("entropy_bottleneck", tables.hyper)
    tensors |= _table_arrays("gaussian_conditional", tables.latent)
    tensors |= {
        "entropy_bottleneck.medians": tables.medians,
        "gaussian_conditional.scale_table": tables.scale_table,
    }
    return _digest(tensors)


def codec_id(codec: Codec) -> bytes:
    """SHA-256 over every weight of the codec, masks applied."""
    return _digest(_weights(codec))
