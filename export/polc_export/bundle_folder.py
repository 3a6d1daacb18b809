"""The folder of a bundle while it is made: files copied in, the manifest, the whole appearing at once.

Imports neither torch nor onnx, so that a bundle can be added to where there is no PyTorch.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from polc_runtime import Bundle
from polc_runtime.bundle import Manifest, StoredFile
from polc_runtime.bundle.bundle import MANIFEST
from polc_runtime.errors import ExportError
from polc_runtime.files.temporary import replace_folder, temporary_folder

from .checks import Check

TOOLS = ("polc", "torch", "onnx", "onnxscript", "onnxruntime", "compressai", "numpy", "timm")
GRAPHS = "graphs"


def copy_bundle(folder: Path, bundle: Bundle) -> Manifest:
    """Copies the files that a bundle's manifest names, each checked against its hash, into an empty folder.

    Raises:
        BundleError: a file is missing or damaged.
    """
    (folder / GRAPHS).mkdir()
    manifest = replace(bundle.manifest, tools=bundle.manifest.tools | tools())
    for stored in files_of(manifest):
        (folder / stored.file).write_bytes(bundle.read(stored.file, stored.sha256))
    write_manifest(folder, manifest)
    return manifest


def files_of(manifest: Manifest) -> list[StoredFile]:
    """Every file that a manifest names, the tables last."""
    graphs = [stored for graph in manifest.graphs for stored in graph.files()]
    return [*graphs, StoredFile(manifest.entropy_file, manifest.entropy_sha256)]


def write_manifest(folder: Path, manifest: Manifest, checks: Sequence[Check] = ()) -> None:
    """Writes manifest.json, with more checks behind those it has."""
    validation = (*manifest.validation, *(check.to_dict() for check in checks))
    (folder / MANIFEST).write_text(replace(manifest, validation=validation).to_json(), "utf-8")


@contextmanager
def atomic_folder(out: Path, force: bool, file: str = MANIFEST) -> Iterator[Path]:
    """A new folder beside `out` that becomes `out` when the block ends well, and vanishes otherwise.

    What was at `out` is there until the new folder takes its name, whenever the process is killed.

    Args:
        out: the folder.
        force: whether it may be replaced.
        file: that tells that it is a folder of the same kind.

    Raises:
        ExportError: `out` exists and `force` is off, or is something else than such a folder.
    """
    check_target(out, force, file)
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out.parent) as fresh:
        yield fresh
        replace_folder(fresh, out)


def check_target(out: Path, force: bool, file: str = MANIFEST) -> None:
    """Raises ExportError unless `out` may be written, see `atomic_folder`."""
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists; replace it with force=True")
    if not (out / file).is_file():
        raise ExportError(f"{out} has no {file}, so it is not replaced: remove it, or write elsewhere")


def tools() -> dict[str, str]:
    """Versions of what makes a bundle here."""
    found = {"python": platform.python_version()}
    for tool in TOOLS:
        try:
            found[tool] = version(tool)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    """The hash of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
