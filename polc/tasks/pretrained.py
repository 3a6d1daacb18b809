"""Vision models with weights: none, timm's, or those of a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from polc_runtime.errors import CheckpointError, first_line

from ..weights import fill, persistent, read_tensors
from .registry import Family

PROBE_SECONDS = 5.0
TIMM = "timm"


def load_pretrained(family: Family, classes: int, positions: int | None, weights: str | None) -> nn.Module:
    """A vision model; see `TaskModel.create` for the arguments.

    Raises:
        CheckpointError: the weights cannot be downloaded or read, in one line.
    """
    if weights == TIMM:
        return _from_timm(family, classes, positions)
    model = _build(family, classes, positions)
    if weights is not None:
        _from_file(family, model, weights)
    return model


def _build(family: Family, classes: int, positions: int | None, pretrained: bool = False) -> nn.Module:
    return family.parts.builder(family.source, pretrained, classes, positions, family.arguments)


def _from_timm(family: Family, classes: int, positions: int | None) -> nn.Module:
    if family.source is None:
        raise CheckpointError(
            f"timm has no weights for {family.name}; give the path of a checkpoint of the vision model"
        )
    with _fast_failure():
        try:
            return _build(family, classes, positions, pretrained=True)
        except Exception as error:  # whatever timm, the hub's client and its HTTP library raise
            raise CheckpointError(
                f"could not download timm's weights for {family.source} ({first_line(error).rstrip('.')}); "
                "they come from huggingface.co, once: connect, or copy a filled cache and set HF_HOME"
            ) from error


@contextmanager
def _fast_failure() -> Iterator[None]:
    """Without a connection, has the hub's client look in its cache only, not retry for a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(url: str) -> bool:
    """Whether the hub answers at all, through the client's own proxies, within a few seconds."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(url, timeout=PROBE_SECONDS)
    except Exception:  # requests' or httpx's, as the hub's version has it
        return False
    return True


def _from_file(family: Family, model: nn.Module, path: str) -> None:
    tensors, _ = read_tensors(path)
    state = family.parts.modern_keys({key.removeprefix("module."): value for key, value in tensors.items()})
    try:
        fill(model, persistent(model), state)
    except CheckpointError as error:
        raise CheckpointError(f"{path} holds no {family.name}: {error}") from None
