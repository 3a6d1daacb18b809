"""Checkpoints: reads those of every codec family and this project's own layout, writes both.

Never unpickles code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.errors import CheckpointError
from polc_runtime.files.outputs import write_file

from .entropy import official_prior_keys
from .families import CODEC_FAMILIES, DEFAULT_FAMILY, codec_family
from .model import CodecModel
from .stored_tables import official_tables, read_official_tables, read_tables, table_tensors
from .tables import largest_difference
from .tasks.labels import check_class_names
from .tasks.model import TaskModel
from .tasks.registry import check_task_name
from .tasks.state import check_adapter, official_task, official_task_weights, own_task
from .weights import METADATA_KEY, build, fill, persistent, read_tensors, some

TABLES_PREFIX = "tables."
TASK_PREFIX = "task."
CLASSES = "classes"
"""Entry of the metadata that names the classes of tasks."""
MAX_TABLE_DIFFERENCE = 2
"""Stored tables are kept when no entry differs by more from those that the model makes."""

BACKBONE = "backbone."
TEACHER = "task_model_teacher."
OFFICIAL_TASK = ("adapter.", "task_model.")
"""Beginnings of names in stage 2's official layout; the teacher equals the task model, and is dropped."""
UNUSED = "mask_token"
FAMILY = "codec_family"
"""Entry of the metadata that names the codec's family; absent for `DEFAULT_FAMILY`."""
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

    codec: CodecModel
    stored_tables: EntropyTables | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    tasks: dict[str, TaskModel] = field(default_factory=dict)
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def tables(self) -> tuple[EntropyTables, str]:
        """Tables to code with and a line that says where they come from.

        Stored tables are kept if offsets and lengths match those that the model makes and no entry differs by
        more than `MAX_TABLE_DIFFERENCE`.
        """
        fresh, made = self.codec.tables(), "entropy tables made from the weights"
        stored = self.stored_tables
        if stored is None:
            return fresh, made
        differences = [largest_difference(getattr(stored, n), getattr(fresh, n)) for n in ("hyper", "latent")]
        same_scales = np.allclose(stored.scale_table, fresh.scale_table, rtol=1e-6, atol=0)
        known = [d for d in differences if d is not None]
        if len(known) < len(differences) or not same_scales:
            return fresh, f"{made}: the stored ones have other offsets, lengths or scales"
        if max(known) > MAX_TABLE_DIFFERENCE:
            return fresh, f"{made}: the stored ones differ by up to {max(known)}"
        return stored, f"entropy tables of the checkpoint kept (largest difference {max(known)})"


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
    codec: CodecModel,
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
        state |= {TABLES_PREFIX + name: value for name, value in table_tensors(tables).items()}
    families = {}
    for name, task in (tasks or {}).items():
        check_adapter(task, codec.config)
        state |= {f"{TASK_PREFIX}{check_task_name(name)}.{key}": v for key, v in persistent(task).items()}
        families[name] = task.family.name
    check_class_names((metadata or {}).get(CLASSES, {}), tasks or {})
    document = {**(metadata or {}), "config": codec.config.to_dict(), "tasks": families}
    if codec.family != DEFAULT_FAMILY:
        document[FAMILY] = codec.family
    metadata = {METADATA_KEY: json.dumps(document, sort_keys=True)}
    write_file(Path(path), save(state, metadata), force=True)


def save_official(
    path: str | Path, codec: CodecModel, tables: EntropyTables | None = None, task: TaskModel | None = None
) -> None:
    """Writes the official layout: `{"state_dict": ...}` by torch, or its tensors as `.safetensors`.

    With a task it is stage 2's layout: `backbone.`, `adapter.` and `task_model.`, without a teacher.

    Raises:
        CheckpointError: the model has no place in its family's layout.
    """
    state = {name: value.detach().cpu() for name, value in codec.official_weights().items()}
    state |= codec.official_constants()
    if tables is not None:
        state |= official_tables(tables)
    if task is not None:
        check_adapter(task, codec.config)
        state = {BACKBONE + name: value for name, value in state.items()} | official_task_weights(task)
    state = {name: value.contiguous() for name, value in state.items()}
    if Path(path).suffix == ".safetensors":
        data = save(state)
    else:
        buffer = io.BytesIO()
        torch.save({"state_dict": state}, buffer)
        data = buffer.getvalue()
    write_file(Path(path), data, force=True)


def _load_own(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> Checkpoint:
    family = codec_family(metadata.pop(FAMILY, DEFAULT_FAMILY))
    config = family.parse(metadata.pop("config"))
    tables = _take(tensors, TABLES_PREFIX)
    tasks_named = metadata.pop("tasks", {})
    if not isinstance(tasks_named, dict) or not all(isinstance(name, str) for name in tasks_named.values()):
        raise CheckpointError("the list of tasks is not usable: expected a family for each name")
    tasks = {
        check_task_name(name): own_task(_take(tensors, f"{TASK_PREFIX}{name}."), config, entry)
        for name, entry in tasks_named.items()
    }
    classes = check_class_names(metadata.get(CLASSES, {}), tasks)
    codec = build(lambda: family.create(config), lambda codec, weights: fill(codec, weights, tensors))
    return Checkpoint(codec, read_tables(tables), metadata, path, tasks, classes)


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
    """A codec of whichever family knows these tensors."""
    official = official_prior_keys(tensors)
    for family in CODEC_FAMILIES:
        if family.recognises(official):
            return Checkpoint(family.load(official), read_official_tables(official), {}, path)
    expected = "; ".join(f"{family.name} expects {family.expects}" for family in CODEC_FAMILIES)
    begins = f"begins with {some(list(official))}" if official else "holds no weights"
    raise CheckpointError(f"these are not the weights of a known codec: the file {begins}. {expected}")
