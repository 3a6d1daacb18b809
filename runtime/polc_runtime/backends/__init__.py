"""Backends: what runs a bundle's graphs."""

from .base import Backend, BackendOptions, FloatArray, backend_names, make_backend

__all__ = ["Backend", "BackendOptions", "FloatArray", "backend_names", "make_backend"]
