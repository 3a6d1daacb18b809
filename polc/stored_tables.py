"""Coding tables in checkpoints: as tensors of this project's layout, and as official buffers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.errors import BundleError, CheckpointError

from .tables import gaussian_table, scale_table

OFFICIAL_TABLES = {
    "hyper": "entropy_bottleneck",
    "latent": "gaussian_conditional",
}
_FIELDS = {"cdf": "_quantized_cdf", "lengths": "_cdf_length", "offsets": "_offset"}
_TABLE_ENTRIES = tuple(f"{prefix}.{e}" for prefix in OFFICIAL_TABLES.values() for e in _FIELDS.values()) + (
    "gaussian_conditional.scale_table",
)


def table_tensors(tables: EntropyTables) -> dict[str, Tensor]:
    """Tables as tensors, by the names of this project's layout."""
    values = {
        f"{name}.{entry}": getattr(getattr(tables, name), entry)
        for name in OFFICIAL_TABLES
        for entry in _FIELDS
    }
    values |= {"medians": tables.medians, "scale_table": tables.scale_table}
    return {name: torch.from_numpy(np.array(value)) for name, value in values.items()}


def read_tables(tensors: Mapping[str, Tensor]) -> EntropyTables | None:
    """The tables that `table_tensors` gave; None for no tensors.

    Raises:
        CheckpointError: they make no tables.
    """
    if not tensors:
        return None
    try:
        arrays = {name: value.numpy() for name, value in tensors.items()}
        parts = {n: CdfTable(*(arrays[f"{n}.{entry}"] for entry in _FIELDS)) for n in OFFICIAL_TABLES}
        return EntropyTables(parts["hyper"], arrays["medians"], parts["latent"], arrays["scale_table"])
    except (KeyError, TypeError, BundleError) as error:  # TypeError: numpy has no bfloat16
        raise CheckpointError(f"stored entropy tables are not usable: {error}") from None


def official_tables(tables: EntropyTables) -> dict[str, Tensor]:
    """Tables as tensors, by official names."""
    ours = table_tensors(tables)
    official = {
        f"{OFFICIAL_TABLES[name]}.{official_entry}": ours[f"{name}.{entry}"]
        for name in OFFICIAL_TABLES
        for entry, official_entry in _FIELDS.items()
    }
    return official | {"gaussian_conditional.scale_table": ours["scale_table"]}


def _usual_gaussian() -> dict[str, Tensor]:
    """Tables of the Gaussian conditional over the usual scales, by official names."""
    scales = scale_table()
    table = gaussian_table(scales)
    arrays = {f"{OFFICIAL_TABLES['latent']}.{_FIELDS[entry]}": getattr(table, entry) for entry in _FIELDS}
    arrays["gaussian_conditional.scale_table"] = scales
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def read_official_tables(official: Mapping[str, Tensor]) -> EntropyTables | None:
    """The tables of an official checkpoint; None where it stores them empty or not at all.

    A codec without a Gaussian conditional, whose latent has the factorised prior, gets the usual tables.
    """
    if not any(key.startswith(OFFICIAL_TABLES["latent"]) for key in official):
        official = {**_usual_gaussian(), **official}
    present = [official[key] for key in _TABLE_ENTRIES if key in official]
    if len(present) < len(_TABLE_ENTRIES) or any(value.numel() == 0 for value in present):
        return None
    ours: dict[str, Tensor] = {}
    for name, prefix in OFFICIAL_TABLES.items():
        for entry, official_entry in _FIELDS.items():
            ours[f"{name}.{entry}"] = official[f"{prefix}.{official_entry}"]
    ours["scale_table"] = official["gaussian_conditional.scale_table"]
    ours["medians"] = official["entropy_bottleneck.quantiles"][:, 0, 1]
    return read_tables(ours)
