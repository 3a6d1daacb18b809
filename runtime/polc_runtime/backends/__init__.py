"""Backends: what runs a bundle's graphs."""

from .base import (
    CPU,
    CUDA,
    DEVICES,
    Backend,
    BackendOptions,
    DeviceTimed,
    FloatArray,
    backend_names,
    backend_on,
    make_backend,
)
from .clock import GraphSeconds

__all__ = [
    "CPU",
    "CUDA",
    "DEVICES",
    "Backend",
    "BackendOptions",
    "DeviceTimed",
    "FloatArray",
    "GraphSeconds",
    "backend_names",
    "backend_on",
    "make_backend",
]
