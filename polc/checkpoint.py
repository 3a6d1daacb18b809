"""Checkpoints: reads the official layout and this project's own, writes both; never unpickles code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polc_runtime.coding.tables import CdfTable, EntropyTables
from polc_runtime.errors import BundleError, CheckpointError, first_line

from .codec import Codec
from .keymap import from_official, modern_prior_keys, official_key, to_official
from .layout import infer_config
from .presets import ModelConfig
from .tables import largest_difference, make_tables

METADATA_KEY = "polc"
TABLES_PREFIX = "tables."
MAX_TABLE_DIFFERENCE = 2
"""Stored tables are kept when no entry differs by more from the tables made anew in float64."""

OFFICIAL_TABLES = {
    "hyper": "entropy_bottleneck",
    "latent": "gaussian_conditional",
}
CONSTANTS = (".mask", ".target", ".bound", ".scale_bound", ".num_batches_tracked")
"""Endings of official entries that follow from the architecture."""


@dataclass
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        codec: the model, in evaluation mode, on the CPU.
        stored_tables: coding tables found in the file, or None.
        metadata: what the file says of itself (stage, data, steps); empty for the official layout.
        path: where it came from.
    """

    codec: Codec
    stored_tables: EntropyTables | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def tables(self) -> tuple[EntropyTables, str]:
        """Tables to code with and a line that says where they come from.

        Stored tables are kept if offsets and lengths match tables made anew and no entry differs by more
        than `MAX_TABLE_DIFFERENCE`.
        """
        fresh = make_tables(PriorArrays.of(self.codec))
        stored = self.stored_tables
        if stored is None:
            return fresh, "entropy tables made in float64"
        differences = [largest_difference(getattr(stored, n), getattr(fresh, n)) for n in OFFICIAL_TABLES]
        same_scales = np.allclose(stored.scale_table, fresh.scale_table, rtol=1e-6, atol=0)
        known = [d for d in differences if d is not None]
        if len(known) < len(differences) or not same_scales:
            return fresh, "entropy tables made anew: the stored ones have other offsets, lengths or scales"
        if max(known) > MAX_TABLE_DIFFERENCE:
            return fresh, f"entropy tables made anew: the stored ones differ by up to {max(known)}"
        return stored, f"entropy tables of the checkpoint kept (largest difference {max(known)})"


@dataclass
class PriorArrays:
    """The factorised prior's weights in float64, for `polc.tables`."""

    matrices: list[np.ndarray]
    biases: list[np.ndarray]
    factors: list[np.ndarray]
    quantiles: np.ndarray

    @classmethod
    def of(cls, codec: Codec) -> PriorArrays:
        """Takes the weights out of a codec."""
        prior = codec.prior

        def arrays(values: Any) -> list[np.ndarray]:
            return [value.detach().cpu().double().numpy() for value in values]

        return cls(
            arrays(prior.matrices), arrays(prior.biases), arrays(prior.factors), arrays([prior.quantiles])[0][:, 0]
        )


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint in either layout (`.safetensors`, or a `torch.save` file such as `.pth.tar`).

    Raises:
        CheckpointError: the file is missing or damaged, holds pickled objects, or its weights are missing,
            unknown or wrongly shaped; the message names the keys.
    """
    path = Path(path)
    tensors, metadata = _read(path)
    try:
        if "config" in metadata:
            return _load_own(path, tensors, metadata)
        return _load_official(path, tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def save_checkpoint(
    path: str | Path,
    codec: Codec,
    metadata: Mapping[str, Any] | None = None,
    tables: EntropyTables | None = None,
) -> None:
    """Writes this project's layout: safetensors, with the dimensions and `metadata` as JSON."""
    state = {name: value.detach().cpu().contiguous() for name, value in codec.named_parameters()}
    if tables is not None:
        state |= {TABLES_PREFIX + name: value for name, value in _table_tensors(tables).items()}
    document = {**(metadata or {}), "config": codec.config.to_dict()}
    save_file(state, path, metadata={METADATA_KEY: json.dumps(document, sort_keys=True)})


def save_official(path: str | Path, codec: Codec, tables: EntropyTables | None = None) -> None:
    """Writes the official layout: `{"state_dict": ...}` by torch, or its tensors as `.safetensors`.

    Raises:
        CheckpointError: the model has no place in that layout (no relative position bias).
    """
    if not codec.config.rel_pos_bias:
        raise CheckpointError("the official layout needs relative position biases; this model has none")
    state = to_official({name: value.detach().cpu() for name, value in codec.named_parameters()})
    for name, module in codec.context.spatial.items():
        weight = official_key(f"context.spatial.{name}.weight")
        state[weight.replace(".weight", ".mask")] = module.mask.expand_as(module.weight)
    if tables is not None:
        state |= _official_tables(tables)
    state = {name: value.contiguous() for name, value in state.items()}
    if Path(path).suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file of either kind."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
                return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is no file of plain weights: it is damaged or holds pickled objects, which are never "
            "loaded; save its state_dict alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds no state_dict of tensors")
    return state, {}


def _load_own(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Checkpoint:
    config = ModelConfig.from_dict(metadata.pop("config"))
    tables = {k[len(TABLES_PREFIX) :]: v for k, v in tensors.items() if k.startswith(TABLES_PREFIX)}
    state = {k: v for k, v in tensors.items() if not k.startswith(TABLES_PREFIX)}
    codec = Codec(config)
    _fill(codec, state, str)
    return Checkpoint(codec, _tables_of(tables), metadata, path)


def _load_official(path: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    official = modern_prior_keys({k.removeprefix("module."): v for k, v in tensors.items()})
    official.pop("mask_token", None)
    config = infer_config(official)
    codec = Codec(config)
    keys = [name for name, _ in codec.named_parameters()]
    known = {official_key(key) for key in keys}
    unknown = [
        key
        for key in official
        if key not in known and not key.endswith(CONSTANTS) and not key.startswith(_TABLE_ENTRIES)
    ]
    if unknown:
        raise CheckpointError(f"unknown weights: {_some(unknown)}; is this a checkpoint of another model?")
    _fill(codec, from_official(official, keys), official_key)
    _check_masks(codec, official)
    return Checkpoint(codec, _official_tables_of(official), {}, path)


def _fill(codec: Codec, state: dict[str, Tensor], shown: Callable[[str], str]) -> None:
    """Loads the parameters and makes the codec ready for evaluation.

    `shown` turns our names into those of the file, for the messages.
    """
    expected = dict(codec.named_parameters())
    if missing := sorted({shown(key) for key in expected.keys() - state.keys()}):
        raise CheckpointError(f"missing weights: {_some(missing)}")
    if unknown := sorted(state.keys() - expected.keys()):
        raise CheckpointError(f"unknown weights: {_some(unknown)}")
    for key, parameter in expected.items():
        if state[key].shape != parameter.shape:
            raise CheckpointError(
                f"{shown(key)} gives {key} the shape {tuple(state[key].shape)}, expected {tuple(parameter.shape)}"
            )
        if not torch.isfinite(state[key]).all():
            raise CheckpointError(f"{shown(key)} holds values that are not finite")
    codec.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    codec.eval()


def _check_masks(codec: Codec, official: Mapping[str, Tensor]) -> None:
    for name, module in codec.context.spatial.items():
        key = official_key(f"context.spatial.{name}.weight").replace(".weight", ".mask")
        mask = official.get(key)
        if mask is not None and not torch.equal(mask.float(), module.mask.expand_as(module.weight)):
            raise CheckpointError(f"{key} is not the mask of this coding order: the model codes in another order")


def _some(keys: list[str], most: int = 5) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest


_FIELDS = {"cdf": "_quantized_cdf", "lengths": "_cdf_length", "offsets": "_offset"}
_TABLE_ENTRIES = tuple(f"{prefix}.{e}" for prefix in OFFICIAL_TABLES.values() for e in _FIELDS.values()) + (
    "gaussian_conditional.scale_table",
)


def _table_tensors(tables: EntropyTables) -> dict[str, Tensor]:
    values = {
        f"{name}.{entry}": getattr(getattr(tables, name), entry) for name in OFFICIAL_TABLES for entry in _FIELDS
    }
    values |= {"medians": tables.medians, "scale_table": tables.scale_table}
    return {name: torch.from_numpy(np.array(value)) for name, value in values.items()}


def _tables_of(tensors: Mapping[str, Tensor]) -> EntropyTables | None:
    if not tensors:
        return None
    try:
        arrays = {name: value.numpy() for name, value in tensors.items()}
        parts = {n: CdfTable(*(arrays[f"{n}.{entry}"] for entry in _FIELDS)) for n in OFFICIAL_TABLES}
        return EntropyTables(parts["hyper"], arrays["medians"], parts["latent"], arrays["scale_table"])
    except (KeyError, BundleError) as error:
        raise CheckpointError(f"stored entropy tables are not usable: {error}") from None


def _official_tables(tables: EntropyTables) -> dict[str, Tensor]:
    ours = _table_tensors(tables)
    official = {
        f"{OFFICIAL_TABLES[name]}.{official_entry}": ours[f"{name}.{entry}"]
        for name in OFFICIAL_TABLES
        for entry, official_entry in _FIELDS.items()
    }
    return official | {"gaussian_conditional.scale_table": ours["scale_table"]}


def _official_tables_of(official: Mapping[str, Tensor]) -> EntropyTables | None:
    """The tables of an official checkpoint; None where it stores them empty or not at all."""
    present = [official[key] for key in _TABLE_ENTRIES if key in official]
    if len(present) < len(_TABLE_ENTRIES) or any(value.numel() == 0 for value in present):
        return None
    ours: dict[str, Tensor] = {}
    for name, prefix in OFFICIAL_TABLES.items():
        for entry, official_entry in _FIELDS.items():
            ours[f"{name}.{entry}"] = official[f"{prefix}.{official_entry}"]
    ours["scale_table"] = official["gaussian_conditional.scale_table"]
    ours["medians"] = official["entropy_bottleneck.quantiles"][:, 0, 1]
    return _tables_of(ours)
