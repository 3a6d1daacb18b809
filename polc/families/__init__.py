"""The codec families: whose checkpoints this project reads."""

from polc_runtime.errors import CheckpointError

from ..model import CodecFamily
from .compressai.family import COMPRESSAI
from .tinylic.family import TINYLIC

CODEC_FAMILIES: tuple[CodecFamily, ...] = (TINYLIC, COMPRESSAI)
"""Asked in this order whose a checkpoint is."""
DEFAULT_FAMILY = TINYLIC.name
"""The family of own checkpoints that name none."""


def codec_family(name: object) -> CodecFamily:
    """The family of that name.

    Raises:
        CheckpointError: there is none; the message lists those there are.
    """
    for family in CODEC_FAMILIES:
        if family.name == name:
            return family
    names = ", ".join(family.name for family in CODEC_FAMILIES)
    raise CheckpointError(f"no codec family is named {name!r}; there are {names}")
