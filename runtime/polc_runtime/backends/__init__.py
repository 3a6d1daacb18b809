"""Backends: what runs a bundle's graphs."""

from .base import (
    CPU,
    CUDA,
    DEVICES,
    Backend,
    BackendBase,
    BackendOptions,
    DeviceTimed,
    FloatArray,
    backend_names,
    backend_on,
    make_backend,
)
from .clock import GraphClock

__all__ = [
    "CPU",
    "CUDA",
    "DEVICES",
    "Backend",
    "BackendBase",
    "BackendOptions",
    "DeviceTimed",
    "FloatArray",
    "GraphClock",
    "backend_names",
    "backend_on",
    "make_backend",
]
