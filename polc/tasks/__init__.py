"""Vision models that predict from latents: the registry of families and the task model."""

from .labels import class_names, imagenet_classes
from .model import TaskModel
from .registry import FAMILIES, Family, Preprocessing, SizeRule, family, infer_family

__all__ = [
    "FAMILIES",
    "Family",
    "Preprocessing",
    "SizeRule",
    "TaskModel",
    "class_names",
    "family",
    "imagenet_classes",
    "infer_family",
]
