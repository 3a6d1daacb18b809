"""The POLC codec in PyTorch: model, attention, checkpoints, and the vision models that its latents feed."""

from polc_runtime.errors import CheckpointError, PolcError

from .attention import KERNELS, NeighborhoodAttention2d, na2d, set_attention_kernel
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_official
from .families.tinylic.adapter import LatentAdapter
from .families.tinylic.codec import CodecOutput, TinyLicCodec
from .families.tinylic.presets import PRESETS, ModelConfig, preset
from .identity import codec_id, fingerprint
from .model import CodecModel
from .tasks import FAMILIES, Family, TaskModel, class_names, imagenet_classes

Codec = TinyLicCodec
"""The class of POLC codecs, which this package began with."""

__all__ = [
    "FAMILIES",
    "KERNELS",
    "PRESETS",
    "Checkpoint",
    "CheckpointError",
    "Codec",
    "CodecModel",
    "CodecOutput",
    "Family",
    "LatentAdapter",
    "ModelConfig",
    "NeighborhoodAttention2d",
    "PolcError",
    "TaskModel",
    "TinyLicCodec",
    "class_names",
    "codec_id",
    "fingerprint",
    "imagenet_classes",
    "load_checkpoint",
    "na2d",
    "preset",
    "save_checkpoint",
    "save_official",
    "set_attention_kernel",
]
