"""CompressAI's checkpoints: which are its own, and the codec that they hold."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ...entropy import CONSTANTS
from ...model import CodecFamily
from ...weights import COUNTER, build, fill, refuse_unknown
from .architectures import FIRST, UNSUPPORTED, CompressAiConfig, infer_config
from .codec import CompressAiCodec, official_name


def recognises(official: Mapping[str, Tensor]) -> bool:
    """Whether these are tensors of one of compressai's image codecs, supported or not."""
    return any(key == FIRST or key.startswith(tuple(UNSUPPORTED)) for key in official)


def load(official: Mapping[str, Tensor]) -> CompressAiCodec:
    """The codec of an official checkpoint's tensors.

    Raises:
        CheckpointError: weights are missing, unknown or wrongly shaped, or of a model that is not supported.
    """
    config = infer_config(official)

    def fill_in(codec: CompressAiCodec, weights: dict[str, Tensor]) -> None:
        names = {official_name(key): key for key in weights}
        refuse_unknown(official, names, (*CONSTANTS, ".pedestal", COUNTER))
        state = {names[name]: value for name, value in official.items() if name in names}
        fill(codec, weights, state, official_name)

    return build(lambda: CompressAiCodec(config), fill_in)


COMPRESSAI = CodecFamily(
    name="compressai",
    expects=f"convolutions with divisive normalisation ({FIRST}, g_a.1.beta), as CompressAI's zoo has",
    recognises=recognises,
    load=load,
    parse=CompressAiConfig.from_dict,
    create=CompressAiCodec,
)
