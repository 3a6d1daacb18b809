"""Task models from checkpoints; the shapes of the weights give their dimensions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from polc_runtime.errors import CheckpointError
from polc_runtime.limits import MAX_WIDTH

from ..families.tinylic.keymap import fill_official, to_official
from ..families.tinylic.presets import ModelConfig
from ..model import Dimensions
from ..weights import fill, persistent
from .model import TaskModel
from .registry import Family, infer_family
from .registry import family as family_named

ADAPTER, MODEL, OFFICIAL_MODEL = "adapter.", "model.", "task_model."


def own_task(state: Mapping[str, Tensor], config: Dimensions, family: str) -> TaskModel:
    """A task model from weights under our names (`adapter.`, `model.`).

    Raises:
        CheckpointError: the family is not known, or weights are missing, unknown or wrongly shaped.
    """
    task = _shaped(family_named(family), _below(state, MODEL), _with_levels(config), MODEL)
    fill(task, persistent(task), state)
    return task


def official_task(official: Mapping[str, Tensor], config: Dimensions, family: str | None = None) -> TaskModel:
    """A task model from weights under official names (`adapter.`, `task_model.`).

    Args:
        official: the weights.
        config: dimensions of the codec.
        family: name in the registry; None to tell it by names and shapes.

    Raises:
        CheckpointError: as `own_task`.
    """
    stored = _below(official, OFFICIAL_MODEL)
    entry = infer_family(stored) if family is None else family_named(family)
    model = entry.parts.modern_keys(stored)
    task = _shaped(entry, model, _with_levels(config), OFFICIAL_MODEL)
    adapter = {key: value for key, value in official.items() if key.startswith(ADAPTER)}
    fill_official(task, persistent(task), adapter | {OFFICIAL_MODEL + key: v for key, v in model.items()})
    return task


def official_task_weights(task: TaskModel) -> dict[str, Tensor]:
    """A task model's weights under official names."""
    return to_official(persistent(task))


def check_adapter(task: TaskModel, config: Dimensions) -> None:
    """Raises CheckpointError unless the adapter reads this codec's latents and quality levels."""
    codec, adapter = _with_levels(config), task.adapter
    found = (adapter.expand.in_channels, adapter.block.levels)
    if found != (expected := (codec.latent_channels, codec.levels)):
        raise CheckpointError(
            f"the adapter reads {found[0]} latent channels at {found[1]} quality levels, the codec has "
            f"{expected[0]} at {expected[1]}"
        )


def _with_levels(config: Dimensions) -> ModelConfig:
    """The dimensions of a codec that adapters can read."""
    if not isinstance(config, ModelConfig) or not config.levels:
        raise CheckpointError("the codec has no quality levels: tasks read the latents of POLC codecs alone")
    return config


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _shaped(family: Family, model: Mapping[str, Tensor], config: ModelConfig, prefix: str) -> TaskModel:
    """A task model with as many classes and positions as the stored vision model has."""
    parts = family.parts
    classes = _size(model, parts.classifier, 0, prefix)
    positions = None
    if parts.position_embedding is not None:
        positions = _size(model, parts.position_embedding, 1, prefix)
        if positions < 2 or round((positions - 1) ** 0.5) ** 2 != positions - 1:
            raise CheckpointError(
                f"{prefix}{parts.position_embedding} has {positions} positions, expected a class token and a "
                "square grid (197 or 257)"
            )
    return TaskModel.create(family, config, classes, positions)


def _size(model: Mapping[str, Tensor], key: str, dim: int, prefix: str) -> int:
    if key not in model:
        raise CheckpointError(f"missing weights: {prefix}{key}")
    shape = model[key].shape
    if len(shape) <= dim or not 1 <= shape[dim] <= MAX_WIDTH:
        raise CheckpointError(f"{prefix}{key} has the shape {tuple(shape)}, which tells no size")
    return int(shape[dim])
