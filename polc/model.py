"""What a codec gives whatever its family: coding plan, graphs, tables and names of weights; and the families.

A family reads the checkpoints of one code base (`polc.families`). Everything else that handles codecs, the
exporter included, works on `CodecModel` alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from polc_runtime.bitstream.plan import CodingPlan
from polc_runtime.bitstream.tables import EntropyTables

from .graphs import GraphSpec

FIXED_QUALITY = 4.0
"""The quality of a model of one rate whose checkpoint does not say which of a ladder's it is."""


class Dimensions(Protocol):
    """What distinguishes one model of a family from another; stored in checkpoints and bundles."""

    def to_dict(self) -> dict[str, Any]:
        """The dimensions as JSON-able data: numbers, texts and lists of numbers."""


class CodecModel(nn.Module, ABC):
    """A codec in PyTorch, of any family.

    Attributes:
        family: name of its family.
        decoding: beginnings of the official names of weights that decide how symbols decode.
        config: its dimensions.
        plan: how its images become symbols, without `macs`; for a model of one rate at `FIXED_QUALITY`.
    """

    family: ClassVar[str]
    decoding: ClassVar[tuple[str, ...]]
    config: Dimensions
    plan: CodingPlan

    @abstractmethod
    def graphs(self) -> dict[str, GraphSpec]:
        """Every graph that the codec is deployed as, by name, in the order they run."""

    @abstractmethod
    def tables(self) -> EntropyTables:
        """Coding tables, made from the weights of the entropy model."""

    @abstractmethod
    def official_weights(self) -> dict[str, Tensor]:
        """Every parameter under the name that the family's own code gives it, on the model's device.

        Masks are applied. Identity is hashed over these names and values.
        """

    def official_constants(self) -> dict[str, Tensor]:
        """What official checkpoints store beside the weights, and the dimensions imply."""
        return {}


@dataclass(frozen=True)
class CodecFamily:
    """The codecs of one code base.

    Attributes:
        name: of the family; own checkpoints state it.
        expects: what its checkpoints hold, for messages.
        recognises: whether tensors under official names are of this family. It need not check them all: what
            is wrong beyond that is for `load` to say.
        load: makes the model of such tensors, without the prefix `module.` and with the factorised prior's
            keys in their old spelling (`polc.entropy.official_prior_keys`). Raises CheckpointError.
        parse: reads what `Dimensions.to_dict` gave. Raises CheckpointError.
        create: makes a model of these dimensions, its weights at random.
    """

    name: str
    expects: str
    recognises: Callable[[Mapping[str, Tensor]], bool]
    load: Callable[[Mapping[str, Tensor]], CodecModel]
    parse: Callable[[Any], Dimensions]
    create: Callable[[Any], CodecModel]
