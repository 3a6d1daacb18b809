"""A bundle on disk: a folder whose manifest names every file with its hash."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bitstream.tables import EntropyTables
from ..errors import BundleError, PolcError
from ..files.inputs import read_plain_file
from ..limits import DEFAULT_LIMITS, Limits
from .find import MANIFEST, find_bundle
from .manifest import Manifest
from .tasks import Task

_EXTERNAL_DATA = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)location")
"""The key that names the file of an ONNX tensor's external data, in every encoding that protobuf reads.

ONNX Runtime looks for such a file in the working folder when the model is given as bytes.
"""


def _read_inside(bundle: Path, file: str, limits: Limits, limit: str) -> bytes:
    """A plain file in the bundle's own folders; `limit` names the bound on its size."""
    path = bundle / file
    if path.parent != bundle and path.parent.is_symlink():
        raise BundleError(f"{path.parent} is a link, which may lead out of the bundle: put a folder there")
    try:
        return read_plain_file(path, limits, limit)
    except PolcError as error:
        raise BundleError(str(error)) from None


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; its files are read, and checked against their hashes, when they are asked for.

    Attributes:
        path: the folder.
        manifest: what it says.
        limits: the largest files.
    """

    path: Path
    manifest: Manifest
    limits: Limits = DEFAULT_LIMITS

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @classmethod
    def load(cls, bundle: str | Path | None = None, limits: Limits = DEFAULT_LIMITS) -> Bundle:
        """Opens a bundle folder (see `find_bundle`).

        Raises:
            BundleError: there is no bundle, or its manifest is damaged, too large or of a newer format.
        """
        path = find_bundle(bundle)
        data = _read_inside(path, MANIFEST, limits, "max_manifest_bytes")
        try:
            return cls(path, Manifest.from_json(data.decode()), limits)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from None
        except UnicodeDecodeError as error:
            raise BundleError(f"{path}: {MANIFEST} cannot be read: {error}") from None

    def read(self, file: str, sha256: str) -> bytes:
        """A file of the bundle, checked against its hash.

        Raises:
            BundleError: it is missing, a link, too large, or not the file the manifest was written for.
        """
        data = _read_inside(self.path, file, self.limits, "max_graph_bytes")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BundleError(f"{self.path}: {file} is damaged or replaced (its hash is not the manifest's)")
        if file.endswith(".onnx") and _EXTERNAL_DATA.search(data):
            raise BundleError(f"{self.path}: {file} takes values from another file, which no bundle needs")
        return data

    def graph(self, name: str, precision: str = "fp32") -> bytes:
        """The ONNX model of a graph, checked against its hash."""
        graph = self.manifest.graph(name, precision)
        return self.read(graph.file, graph.sha256)

    def entropy_tables(self) -> EntropyTables:
        """The coding tables, checked against their hash and against the model's widths."""
        file = self.manifest.entropy_file
        data = self.read(file, self.manifest.entropy_sha256)
        tables = EntropyTables.parse(data, str(self.path / file), self.limits)
        plan = self.manifest.plan
        channels = (plan.hyper or plan.latent).channels
        if tables.hyper.rows != channels:
            raise BundleError(
                f"{self.path}: entropy tables for {tables.hyper.rows} channels, the model has {channels}"
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
            "size": vars(manifest.plan.pad),
            "coding": manifest.plan.to_dict(),
            "tolerances": manifest.tolerances.to_list(),
            "variants": [variant.to_dict() for variant in manifest.variants],
            "graphs": [{**graph.to_dict(), "bytes": size(graph.file)} for graph in manifest.graphs],
            "entropy": {"file": manifest.entropy_file, "bytes": size(manifest.entropy_file)},
            "tasks": [self._describe_task(task) for task in manifest.tasks],
            "validation": list(manifest.validation),
            "tools": manifest.tools,
            "notes": list(manifest.notes),
        }

    def _size(self, file: str) -> int | None:
        path = self.path / file
        return path.lstat().st_size if path.is_file() else None

    def _describe_task(self, task: Task) -> dict[str, Any]:
        """The task's entry, with the number of classes for their names; weights and bytes of its graphs."""
        graphs = [graph for graph in self.manifest.graphs if graph.name in task.interfaces()]
        return {
            **task.to_dict(),
            "classes": len(task.classes),
            "parameters": max(graph.parameters for graph in graphs if graph.name == task.graph),
            "bytes": sum(self._size(graph.file) or 0 for graph in graphs),
        }
