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
from polc_runtime.bundle import Manifest
from polc_runtime.errors import ExportError
from polc_runtime.files.temporary import replace_folder, temporary_folder

from .validation.checks import Check

TOOLS = ("polc", "torch", "onnx", "onnxscript", "onnxruntime", "compressai", "numpy", "timm")
GRAPHS = "graphs"


def copy_bundle(folder: Path, bundle: Bundle) -> Manifest:
    """Copies a bundle's files, each checked against its hash, into an existing, empty folder.

    Raises:
        BundleError: a file is missing or damaged.
    """
    (folder / GRAPHS).mkdir()
    manifest = replace(bundle.manifest, tools=bundle.manifest.tools | tools())
    files = {stored.file: stored.sha256 for graph in manifest.graphs for stored in graph.files()}
    for file, digest in {**files, manifest.entropy_file: manifest.entropy_sha256}.items():
        (folder / file).write_bytes(bundle.read(file, digest))
    write_manifest(folder, manifest)
    return manifest


def write_manifest(folder: Path, manifest: Manifest, checks: Sequence[Check] = ()) -> None:
    """Writes manifest.json, with more checks behind those it has."""
    validation = (*manifest.validation, *(check.to_dict() for check in checks))
    (folder / "manifest.json").write_text(replace(manifest, validation=validation).to_json(), "utf-8")


@contextmanager
def appearing(out: Path, force: bool) -> Iterator[Path]:
    """A fresh folder beside `out` that becomes `out` when the block ends well, and vanishes otherwise.

    What was at `out` is there until the fresh folder takes its name, whenever the process is killed.

    Raises:
        ExportError: `out` exists and `force` is off, or is something other than a bundle.
    """
    check_target(out, force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(out.parent) as fresh:
        yield fresh
        replace_folder(fresh, out)


def check_target(out: Path, force: bool) -> None:
    """Raises ExportError unless a bundle may be written at `out`."""
    if not out.exists():
        return
    if not force:
        raise ExportError(f"{out} exists; pass --force to replace it")
    if not (out / "manifest.json").is_file():
        raise ExportError(f"{out} is no bundle, so --force does not replace it")


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
