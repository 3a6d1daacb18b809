"""What identifies a codec: hashes over its weights, tables and coding plan, under official names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.bitstream.tables import CdfTable, EntropyTables

from .model import CodecModel


def _digest(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """SHA-256 over name, shape and little-endian values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        kind = "<i4" if value.dtype.kind in "iu" else "<f4"
        digest.update(f"{name} {','.join(map(str, value.shape))} {kind}\n".encode())
        digest.update(np.ascontiguousarray(value, dtype=kind).tobytes())
    return digest.digest()


def _weights(model: CodecModel) -> dict[str, NDArray[Any]]:
    return {name: value.detach().cpu().numpy() for name, value in model.official_weights().items()}


def _table_arrays(prefix: str, table: CdfTable) -> dict[str, NDArray[Any]]:
    return {
        f"{prefix}._quantized_cdf": table.cdf[:, : int(table.lengths.max())],
        f"{prefix}._cdf_length": table.lengths,
        f"{prefix}._offset": table.offsets,
    }


def canonical_layout(plan: CodingPlan) -> bytes:
    """What the bits depend on of a plan, as JSON: keys sorted, no spaces, ASCII."""
    return json.dumps(plan.layout(), sort_keys=True, separators=(",", ":")).encode()


def fingerprint(model: CodecModel, tables: EntropyTables) -> bytes:
    """32 bytes over what decoding depends on: tables, medians, the entropy networks' weights and the plan.

    Let D be SHA-256 over tensors (docs/bundle.md, "Identity"): the weights whose official names begin with
    one of `model.decoding`, and the tables. The fingerprint is D for a model whose files are of bitstream
    version 1. For others it is SHA-256 over the 32 bytes of D, followed by `canonical_layout` of the plan.
    """
    tensors = {k: v for k, v in _weights(model).items() if k.startswith(model.decoding)}
    tensors |= _table_arrays("entropy_bottleneck", tables.hyper)
    tensors |= _table_arrays("gaussian_conditional", tables.latent)
    tensors |= {
        "entropy_bottleneck.medians": tables.medians,
        "gaussian_conditional.scale_table": tables.scale_table,
    }
    digest = _digest(tensors)
    if model.plan.fits_version_1:
        return digest
    return hashlib.sha256(digest + canonical_layout(model.plan)).digest()


def codec_id(model: CodecModel) -> bytes:
    """SHA-256 over every weight of the codec, masks applied."""
    return _digest(_weights(model))
