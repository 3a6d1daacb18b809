"""Checkpoints: reads the official layout and this project's own, writes both; never unpickles code."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from polc_runtime.bitstream.tables import CdfTable, EntropyTables
from polc_runtime.errors import BundleError, CheckpointError, first_line
from polc_runtime.files.outputs import write_file

from .families.tinylic.codec import Codec
from .families.tinylic.keymap import modern_prior_keys, official_key, to_official
from .families.tinylic.layout import infer_config
from .families.tinylic.presets import ModelConfig
from .tables import largest_difference, make_tables
from .tasks.labels import check_class_names
from .tasks.model import TaskModel
from .tasks.registry import check_task_name
from .tasks.state import check_adapter, official_task, own_task
from .weights import METADATA_KEY, fill, fill_official, persistent, read_tensors, some

TABLES_PREFIX = "tables."
TASK_PREFIX = "task."
CLASSES = "classes"
"""Entry of the metadata that names the classes of tasks."""
MAX_TABLE_DIFFERENCE = 2
"""Stored tables are kept when no entry differs by more from the tables made anew in float64."""

OFFICIAL_TABLES = {
    "hyper": "entropy_bottleneck",
    "latent": "gaussian_conditional",
}
CONSTANTS = (".mask", ".target", ".bound", ".scale_bound", ".num_batches_tracked")
"""Endings of official entries that follow from the architecture."""
BACKBONE = "backbone."
TEACHER = "task_model_teacher."
OFFICIAL_TASK = ("adapter.", "task_model.")
"""Beginnings of names in stage 2's official layout; the teacher equals the task model, and is dropped."""
UNUSED = "mask_token"
REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
"""Types of values that weights and tables may have: with others torch cannot do all that is needed."""


@dataclass
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        codec: the model, in evaluation mode, on the CPU.
        stored_tables: coding tables found in the file, or None.
        metadata: what the file says of itself (stage, data, steps); empty for the official layout.
        path: where it came from.
        tasks: vision models behind adapters, by name; an official checkpoint's is named as its family.
        classes: names of the tasks' classes, by the task's name, where the metadata gives them.
    """

    codec: Codec
    stored_tables: EntropyTables | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    tasks: dict[str, TaskModel] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

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
            arrays(prior.matrices),
            arrays(prior.biases),
            arrays(prior.factors),
            arrays([prior.quantiles])[0][:, 0],
        )


def load_checkpoint(path: str | Path, family: str | None = None) -> Checkpoint:
    """Reads a checkpoint in either layout (`.safetensors`, or a `torch.save` file such as `.pth.tar`).

    Args:
        path: of the file.
        family: of the vision model in an official stage-2 checkpoint, a name in `polc.tasks.FAMILIES`; None
            to tell it by its key names and shapes.

    Raises:
        CheckpointError: the file is missing or damaged, holds pickled objects, or its weights are missing,
            unknown or wrongly shaped; the message names the keys.
    """
    path = Path(path)
    tensors, metadata = read_tensors(path)
    try:
        if strange := sorted(key for key, value in tensors.items() if value.dtype not in REAL + WHOLE):
            raise CheckpointError(f"values of a type that weights never have: {some(strange)}")
        if "config" in metadata:
            return _load_own(path, tensors, metadata)
        return _load_official(path, tensors, family)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def save_checkpoint(
    path: str | Path,
    codec: Codec,
    metadata: Mapping[str, Any] | None = None,
    tables: EntropyTables | None = None,
    tasks: Mapping[str, TaskModel] | None = None,
) -> None:
    """Writes this project's layout: safetensors, with dimensions and `metadata` as JSON; whole or not at all.

    Args:
        path: of the file.
        codec: the model.
        metadata: JSON-able facts to keep with it. Under `classes` it may give, by the task's name, the names
            of a task's classes in the order of the logits.
        tables: its coding tables.
        tasks: vision models that read its latents, by name.

    Raises:
        CheckpointError: a task's name is not usable, its adapter reads other latents, or its classes have
            other names than one each.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in codec.named_parameters()}
    if tables is not None:
        state |= {TABLES_PREFIX + name: value for name, value in _table_tensors(tables).items()}
    families = {}
    for name, task in (tasks or {}).items():
        check_adapter(task, codec.config)
        state |= {f"{TASK_PREFIX}{check_task_name(name)}.{key}": v for key, v in persistent(task).items()}
        families[name] = task.family.name
    check_class_names((metadata or {}).get(CLASSES, {}), tasks or {})
    document = {**(metadata or {}), "config": codec.config.to_dict(), "tasks": families}
    metadata = {METADATA_KEY: json.dumps(document, sort_keys=True)}
    write_file(Path(path), save(state, metadata), force=True)


def save_official(
    path: str | Path, codec: Codec, tables: EntropyTables | None = None, task: TaskModel | None = None
) -> None:
    """Writes the official layout: `{"state_dict": ...}` by torch, or its tensors as `.safetensors`.

    With a task it is stage 2's layout: `backbone.`, `adapter.` and `task_model.`, without a teacher.

    Raises:
        CheckpointError: the model has no place in that layout (no relative position bias).
    """
    if not codec.config.rel_pos_bias:
        raise CheckpointError("the official layout needs relative position biases; this model has none")
    state = to_official({name: value.detach().cpu() for name, value in codec.named_parameters()})
    state |= _official_masks(codec)
    if tables is not None:
        state |= _official_tables(tables)
    if task is not None:
        check_adapter(task, codec.config)
        state = {BACKBONE + name: value for name, value in state.items()} | to_official(persistent(task))
    state = {name: value.contiguous() for name, value in state.items()}
    if Path(path).suffix == ".safetensors":
        data = save(state)
    else:
        buffer = io.BytesIO()
        torch.save({"state_dict": state}, buffer)
        data = buffer.getvalue()
    write_file(Path(path), data, force=True)


def _load_own(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Checkpoint:
    config = ModelConfig.from_dict(metadata.pop("config"))
    tables = _take(tensors, TABLES_PREFIX)
    families = metadata.pop("tasks", {})
    if not isinstance(families, dict) or not all(isinstance(name, str) for name in families.values()):
        raise CheckpointError("the list of tasks is not usable: expected a family for each name")
    tasks = {
        check_task_name(name): own_task(_take(tensors, f"{TASK_PREFIX}{name}."), config, entry)
        for name, entry in families.items()
    }
    classes = check_class_names(metadata.get(CLASSES, {}), tasks)
    codec = _filled(config, lambda codec, weights: fill(codec, weights, tensors))
    return Checkpoint(codec, _tables_of(tables), metadata, path, tasks, classes)


def _filled(config: ModelConfig, fill_in: Callable[[Codec, dict[str, Tensor]], None]) -> Codec:
    """A codec with its weights, compared before it takes memory: dimensions may announce anything."""
    try:
        with torch.device("meta"):
            outline = Codec(config)
    except (RuntimeError, OverflowError, ValueError) as error:
        raise CheckpointError(f"the dimensions make no model: {first_line(error)}") from None
    fill_in(outline, dict(outline.named_parameters()))
    codec = Codec(config)
    fill_in(codec, dict(codec.named_parameters()))
    return codec


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Moves the tensors whose names begin with `prefix` out of `tensors`; the names lose it."""
    return {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}


def _load_official(path: Path, tensors: dict[str, Tensor], family: str | None) -> Checkpoint:
    """A codec alone, or stage 2's wrapper of a codec, an adapter, a vision model and its teacher."""
    official = {k.removeprefix("module."): v for k, v in tensors.items() if not k.endswith(UNUSED)}
    _take(official, TEACHER)
    task = {key: official.pop(key) for key in list(official) if key.startswith(OFFICIAL_TASK)}
    if not task:
        return _official_codec(path, official)
    backbone = _take(official, BACKBONE)
    if not backbone:
        raise CheckpointError(
            f"there is an adapter, but no codec ({BACKBONE}...): save the whole stage-2 model"
        )
    if official:
        raise CheckpointError(f"unknown weights: {some(list(official))}")
    try:
        checkpoint = _official_codec(path, backbone)
    except CheckpointError as error:
        raise CheckpointError(f"in {BACKBONE}*: {error}") from None
    model = official_task(task, checkpoint.codec.config, family)
    checkpoint.tasks[model.family.name] = model
    return checkpoint


def _official_codec(path: Path, tensors: dict[str, Tensor]) -> Checkpoint:
    official = modern_prior_keys(tensors)
    constants = (*CONSTANTS, *_TABLE_ENTRIES)
    codec = _filled(
        infer_config(official), lambda codec, weights: fill_official(codec, weights, official, constants)
    )
    _check_masks(codec, official)
    return Checkpoint(codec, _official_tables_of(official), {}, path)


def _official_masks(codec: Codec) -> dict[str, Tensor]:
    """The 0/1 masks of the spatial context, which the official layout stores beside the weights."""
    spatial: Any = codec.context.spatial
    return {
        official_key(f"context.spatial.{name}.weight").replace(".weight", ".mask"): m.mask.expand_as(m.weight)
        for name, m in spatial.items()
    }


def _check_masks(codec: Codec, official: Mapping[str, Tensor]) -> None:
    for key, expected in _official_masks(codec).items():
        if key in official and not torch.equal(official[key].float(), expected):
            raise CheckpointError(
                f"{key} is not the mask of this coding order: the model codes in another order"
            )


_FIELDS = {"cdf": "_quantized_cdf", "lengths": "_cdf_length", "offsets": "_offset"}
_TABLE_ENTRIES = tuple(f"{prefix}.{e}" for prefix in OFFICIAL_TABLES.values() for e in _FIELDS.values()) + (
    "gaussian_conditional.scale_table",
)


def _table_tensors(tables: EntropyTables) -> dict[str, Tensor]:
    values = {
        f"{name}.{entry}": getattr(getattr(tables, name), entry)
        for name in OFFICIAL_TABLES
        for entry in _FIELDS
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
    except (KeyError, TypeError, BundleError) as error:  # TypeError: numpy has no bfloat16
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
