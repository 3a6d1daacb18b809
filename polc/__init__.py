"""The POLC codec in PyTorch: model, attention, checkpoints, and the vision models that its latents feed."""

from polc_runtime.errors import CheckpointError, PolcError

from .attention import KERNELS, NeighborhoodAttention2d, na2d, set_attention_kernel
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_official
from .families.tinylic.adapter import LatentAdapter
from .families.tinylic.codec import Codec, CodecOutput
from .families.tinylic.presets import PRESETS, ModelConfig, preset
from .identity import codec_id, fingerprint
from .tasks import FAMILIES, Family, TaskModel, class_names, imagenet_classes

__all__ = [
    "FAMILIES",
    "KERNELS",
    "PRESETS",
    "Checkpoint",
    "CheckpointError",
    "Codec",
    "CodecOutput",
    "Family",
    "LatentAdapter",
    "ModelConfig",
    "NeighborhoodAttention2d",
    "PolcError",
    "TaskModel",
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
