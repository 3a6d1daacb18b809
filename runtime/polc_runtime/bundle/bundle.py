"""A bundle on disk: a folder whose manifest names every file with its hash."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..coding.tables import EntropyTables
from ..errors import BundleError
from .manifest import SIZE, Manifest
from .tasks import Task

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 << 20
ENVIRONMENT = "POLC_BUNDLE"
PACKAGED = Path(__file__).resolve().parent.parent / "bundles"
"""Where the bundles inside this package lie, a folder each."""
DEFAULT_BUNDLE = "nano"


def packaged_bundles() -> list[str]:
    """Names of the bundles inside this package."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{MANIFEST}"))


def names_none(bundle: str | Path | None) -> bool:
    """Whether neither the argument nor `$POLC_BUNDLE` names a bundle, so that the default is taken."""
    return bundle is None and not os.environ.get(ENVIRONMENT)


def find_bundle(bundle: str | Path | None) -> Path:
    """The folder of a bundle given by path or by the name of a packaged one.

    Args:
        bundle: path or name; None for `$POLC_BUNDLE`, else the packaged bundle `DEFAULT_BUNDLE`.

    Raises:
        BundleError: there is none; the message says which packaged ones there are.
    """
    chosen = DEFAULT_BUNDLE if names_none(bundle) else bundle or os.environ[ENVIRONMENT]
    path = Path(chosen)
    if str(chosen) in packaged_bundles() and not path.exists():
        return PACKAGED / chosen
    if not path.is_dir():
        reason = "it is a file" if path.exists() else f"no such folder, {_packaged_told()}"
        raise BundleError(f"{path} is no bundle: {reason}")
    if not (path / MANIFEST).is_file():
        raise BundleError(f"{path} is no bundle: it has no {MANIFEST}")
    return path


def _packaged_told() -> str:
    names = ", ".join(packaged_bundles())
    return f"and of the packaged bundles ({names}) none has that name" if names else "and none is packaged"


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; its files are read, and checked against their hashes, when they are asked for.

    Attributes:
        path: the folder.
        manifest: what it says.
    """

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @classmethod
    def load(cls, bundle: str | Path | None = None) -> Bundle:
        """Opens a bundle folder (see `find_bundle`).

        Raises:
            BundleError: there is no bundle, or its manifest is damaged or of a newer format.
        """
        path = find_bundle(bundle)
        try:
            with (path / MANIFEST).open("rb") as file:
                text = file.read(MAX_MANIFEST_BYTES + 1)
            if len(text) > MAX_MANIFEST_BYTES:
                raise BundleError(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
            return cls(path, Manifest.from_json(text.decode()))
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{path}: {MANIFEST} cannot be read: {error}") from None

    def read(self, file: str, sha256: str) -> bytes:
        """A file of the bundle, checked against its hash.

        Raises:
            BundleError: it is missing, a link, or not the file the manifest was written for.
        """
        path = self.path / file
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{self.path}: {file} is missing or no plain file")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{self.path}: {file} cannot be read: {error}") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BundleError(f"{self.path}: {file} is damaged or replaced (its hash is not the manifest's)")
        return data

    def graph(self, name: str, precision: str = "fp32") -> bytes:
        """The ONNX model of a graph, checked against its hash."""
        graph = self.manifest.graph(name, precision)
        return self.read(graph.file, graph.sha256)

    def entropy_tables(self) -> EntropyTables:
        """The coding tables, checked against their hash and against the model's widths."""
        self.read(self.manifest.entropy_file, self.manifest.entropy_sha256)
        tables = EntropyTables.load(self.path / self.manifest.entropy_file)
        if tables.hyper.rows != self.manifest.hyper_channels:
            raise BundleError(
                f"{self.path}: entropy tables for {tables.hyper.rows} channels, the model has "
                f"{self.manifest.hyper_channels}"
            )
        return tables

    def describe(self) -> dict[str, Any]:
        """What the bundle holds, as JSON-able data, sizes included."""
        manifest = self.manifest
        size = self._size
        return {
            "path": str(self.path),
            "name": manifest.name,
            "model": manifest.model,
            "fingerprint": manifest.fingerprint.hex(),
            "codec_id": manifest.codec_id.hex(),
            "quality_range": list(manifest.quality_range),
            "size": SIZE,
            "graphs": [{**graph.to_dict(), "bytes": size(graph.file)} for graph in manifest.graphs],
            "entropy": {"file": manifest.entropy_file, "bytes": size(manifest.entropy_file)},
            "tasks": [self._describe_task(task) for task in manifest.tasks],
            "validation": list(manifest.validation),
            "tools": manifest.tools,
            "notes": list(manifest.notes),
        }

    def _size(self, file: str) -> int | None:
        path = self.path / file
        return path.stat().st_size if path.is_file() else None

    def _describe_task(self, task: Task) -> dict[str, Any]:
        """The task's entry, with the number of classes for their names; weights and bytes of its graphs."""
        graphs = [graph for graph in self.manifest.graphs if graph.name in task.interfaces()]
        return {
            **task.to_dict(),
            "classes": len(task.classes),
            "parameters": max(graph.parameters for graph in graphs if graph.name == task.graph),
            "bytes": sum(self._size(graph.file) or 0 for graph in graphs),
        }
