"""TensorRT engines from a bundle's ONNX files, without torch or onnx."""

from typing import TYPE_CHECKING, Any

from .options import EngineOptions, engine_options

if TYPE_CHECKING:
    from .build import BuiltEngine, build_engines

__all__ = ["BuiltEngine", "EngineOptions", "build_engines", "engine_options"]


def __getattr__(name: str) -> Any:
    """Imports the builder on first use: the command line takes its options from here."""
    if name in __all__:
        from . import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
