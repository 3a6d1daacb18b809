"""The POLC codec in PyTorch: model, attention, checkpoints."""

from polc_runtime.errors import CheckpointError, PolcError

from .attention import KERNELS, NeighborhoodAttention2d, na2d, set_attention_kernel
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_official
from .codec import Codec, CodecOutput
from .identity import codec_id, fingerprint
from .presets import PRESETS, ModelConfig, preset

__all__ = [
    "KERNELS",
    "PRESETS",
    "Checkpoint",
    "CheckpointError",
    "Codec",
    "CodecOutput",
    "ModelConfig",
    "NeighborhoodAttention2d",
    "PolcError",
    "codec_id",
    "fingerprint",
    "load_checkpoint",
    "na2d",
    "preset",
    "save_checkpoint",
    "save_official",
    "set_attention_kernel",
]
