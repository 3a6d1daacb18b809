"""Tensors in files and modules: reads a checkpoint without unpickling code, and fills a module from it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from polc_runtime.bundle.fields import parse_json
from polc_runtime.errors import CheckpointError, first_line

M = TypeVar("M", bound=nn.Module)

METADATA_KEY = "polc"
COUNTER = ".num_batches_tracked"
"""Ending of batch normalisation's step counters, which no result depends on."""


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a `.safetensors` file, or of one that torch.save wrote (no metadata there).

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything but tensors.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # of a pipe we would wait for bytes
        raise CheckpointError(f"{path} is not a regular file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = parse_json((file.metadata() or {}).get(METADATA_KEY, "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            if not isinstance(metadata, dict):
                raise CheckpointError(f"{path}: the metadata {METADATA_KEY} is not a JSON object")
            return tensors, metadata
        return _read_torch(path), {}
    except CheckpointError:
        raise
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is not a file of plain weights: it is damaged or holds pickled objects, which are never "
            "loaded; save its state_dict alone"
        ) from None
    except Exception as error:  # on hostile files torch's unpickler lets every kind through
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {first_line(error)}") from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path} is compressed, which torch.save never does: unpack it first")
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} holds no state_dict of tensors")
    if strange := sorted(key for key, value in state.items() if not _holds_its_values(value)):
        raise CheckpointError(f"{path} holds tensors of other kinds than plain weights: {some(strange)}")
    return state


def _holds_its_values(value: Tensor) -> bool:
    """Whether a tensor is as large as it says: not sparse, on the CPU, no view that repeats itself."""
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    return (
        plain
        and not value.is_nested
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def persistent(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers of a module, on the CPU, without batch normalisation's step counters."""
    state = {key: value.detach().cpu() for key, value in module.state_dict().items()}
    return {key: value.contiguous() for key, value in state.items() if not key.endswith(COUNTER)}


def fill(
    module: nn.Module,
    expected: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    shown: Callable[[str], str] = str,
) -> None:
    """Loads weights and makes the module ready for evaluation.

    Args:
        module: what to fill; if its weights have no values (`meta`, fake tensors), shapes are compared and
            nothing is loaded.
        expected: its weights, by name.
        state: what to put there, under the same names; step counters are passed over.
        shown: turns our names into those of the file, for the messages.

    Raises:
        CheckpointError: weights are missing, unknown, wrongly shaped or not finite; the message names them.
    """
    state = {key: value for key, value in state.items() if not key.endswith(COUNTER)}
    if missing := sorted({shown(key) for key in expected.keys() - state.keys()}):
        raise CheckpointError(f"missing weights: {some(missing)}")
    if unknown := sorted(state.keys() - expected.keys()):
        raise CheckpointError(f"unknown weights: {some(unknown)}")
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise CheckpointError(
                f"{shown(key)} gives {key} the shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
            )
        if not _has_values(value):
            continue
        if not state[key].float().sum().isfinite():  # says as much as each value, and is cheaper
            raise CheckpointError(f"{shown(key)} holds values that are not finite")
    if not all(map(_has_values, expected.values())):
        return
    module.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    module.eval()


def refuse_unknown(names: Iterable[str], known: Container[str], constants: tuple[str, ...]) -> None:
    """Raises CheckpointError for names that are not known, unless they end like one of `constants`."""
    if unknown := [name for name in names if name not in known and not name.endswith(constants)]:
        raise CheckpointError(f"unknown weights: {some(unknown)}; is this a checkpoint of another model?")


def build(make: Callable[[], M], fill_in: Callable[[M, dict[str, Tensor]], None]) -> M:
    """A model with its weights, compared before it takes memory: dimensions may announce anything.

    Args:
        make: makes the model, with any weights.
        fill_in: loads a model's weights, as `fill` does; called with the model and its parameters by name.

    Raises:
        CheckpointError: the dimensions make no model, or what `fill_in` raises.
    """
    outline = _outline(make)
    fill_in(outline, dict(outline.named_parameters()))
    model = make()
    fill_in(model, dict(model.named_parameters()))
    return model


def _outline(make: Callable[[], M]) -> M:
    """A model whose weights have shapes and no values."""
    # compressai makes some constants on the CPU, which does not go with meta; and truncated normal values,
    # which are drawn until all fit, do not go with fake tensors.
    for without_values in (torch.device("meta"), FakeTensorMode()):
        try:
            with without_values:
                return make()
        except (RuntimeError, OverflowError, ValueError) as error:
            reason = first_line(error)
    raise CheckpointError(f"the dimensions make no model: {reason}")


def _has_values(tensor: Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def some(keys: list[str], most: int = 5) -> str:
    """The first few of a list of names, for a message."""
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest
