"""The library of the TensorRT plugin that runs the attention: where it lies, and whether it loads here."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BackendUnavailable
from ..op_library import TRT_PATTERN, packaged

VARIABLE = "POLC_TRT_PLUGIN"
"""Environment variable that names another library, or `none` to do without."""

PLUGIN_NAME, PLUGIN_VERSION = "NeighborhoodAttention2D", "1"


@dataclass(frozen=True)
class PluginLibrary:
    """The library of the plugin, or why there is none.

    Attributes:
        path: the library, whose plugin is registered in this process; None for none.
        reason: what is missing; empty where nothing is.
    """

    path: Path | None
    reason: str = ""

    @property
    def attention(self) -> str:
        """What runs the attention, for people: `plugin`, or `inlined (why)`."""
        return f"inlined ({self.reason})" if self.path is None else "plugin"


NO_PLUGIN = PluginLibrary(None, "the plugin was not asked for")
"""What serves where the plugin is not wanted: none."""

_loaded: dict[Path, PluginLibrary] = {}
_lock = threading.Lock()


def find_plugin(trt: Any) -> PluginLibrary:
    """Loads the library that `POLC_TRT_PLUGIN` names, else the one built with the package.

    Args:
        trt: the module tensorrt.

    Raises:
        BackendUnavailable: `POLC_TRT_PLUGIN` names a file that is not there or does not load.
    """
    named = os.environ.get(VARIABLE, "")
    if named == "none":
        return PluginLibrary(None, f"{VARIABLE}=none")
    path = Path(named).absolute() if named else packaged(TRT_PATTERN)
    if path is None:
        return PluginLibrary(
            None,
            "the package was built without libpolc_trt_plugin (no CUDA compiler or TensorRT headers there)",
        )
    with _lock:
        if path not in _loaded:
            _loaded[path] = _load(trt, path)
        found = _loaded[path]
    if named and found.path is None:
        raise BackendUnavailable(f"{VARIABLE}={named}: {found.reason}; unset it, or set it to none")
    return found


def _load(trt: Any, path: Path) -> PluginLibrary:
    if not path.is_file():
        return PluginLibrary(None, "no such file")
    registry = trt.get_plugin_registry()
    handle = registry.load_library(str(path))
    if handle is None or not _is_registered(registry):
        return PluginLibrary(
            None,
            f"TensorRT {trt.__version__} does not take {path.name}, perhaps built for another TensorRT",
        )
    return PluginLibrary(path)


def _is_registered(registry: Any) -> bool:
    """Whether the plugin is there, under whichever namespace its library gave it."""
    creators = getattr(registry, "all_creators", None)
    if creators is None:  # before TensorRT 10
        creators = registry.plugin_creator_list
    return any((c.name, c.plugin_version) == (PLUGIN_NAME, PLUGIN_VERSION) for c in creators)
