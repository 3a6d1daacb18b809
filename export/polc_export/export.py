"""`export_bundle`: a checkpoint to a validated bundle, as one call; the command line calls it too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polc import load_checkpoint
from polc_runtime import Bundle
from polc_runtime.errors import ExportError

from .onnx_graph import DEFAULT_OPSET
from .validate import Check, sample_photo, validate
from .writer import appearing, check_target, write_bundle, write_manifest

Report = Callable[[str], None]


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: of the default ONNX domain.
        validate: whether to compare the bundle with PyTorch.
        photo: image to validate on; None for the one that matplotlib carries.
        name: of the model; None for the checkpoint's file name.
        force: whether an existing bundle is replaced.
    """

    opset: int = DEFAULT_OPSET
    validate: bool = True
    photo: Path | None = None
    name: str | None = None
    force: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        bundle: the bundle, where it now is.
        checks: the validation report; empty where it was skipped.
    """

    bundle: Bundle
    checks: tuple[Check, ...]


def default_bundle_path(checkpoint: Path) -> Path:
    """Where a bundle goes that nobody names: beside the checkpoint, `model.pth.tar` -> `model.bundle`."""
    return checkpoint.with_name(model_name(checkpoint) + ".bundle")


def model_name(checkpoint: Path) -> str:
    """A checkpoint's file name without its endings."""
    return checkpoint.name.split(".")[0] or checkpoint.name


def export_bundle(
    checkpoint_path: Path,
    out: Path | None = None,
    options: ExportOptions | None = None,
    report: Report = lambda line: None,
) -> ExportResult:
    """Exports a codec checkpoint to a bundle that appears whole, validated, or not at all.

    Args:
        checkpoint_path: in either layout.
        out: the bundle's folder; None for one beside the checkpoint.
        options: how to export.
        report: called with a line of progress at a time.

    Raises:
        CheckpointError: the checkpoint is not usable.
        ExportError: a graph cannot be exported or a check fails; nothing is left behind.
    """
    options = options or ExportOptions()
    out = out or default_bundle_path(checkpoint_path)
    check_target(out, options.force)
    photo = sample_photo(options.photo) if options.validate else None
    checkpoint = load_checkpoint(checkpoint_path)
    tables, origin = checkpoint.tables()
    report(origin)
    checks: tuple[Check, ...] = ()
    with appearing(out, options.force) as folder:
        name = options.name or model_name(checkpoint_path)
        notes = tuple(checkpoint.metadata.get("notes", ()))
        manifest = write_bundle(folder, checkpoint, tables, name, options.opset, notes, report)
        if photo is not None:
            checks = tuple(validate(Bundle(folder, manifest), checkpoint.codec, photo, report))
            for check in checks:
                report(check.line())
            if failed := [check for check in checks if not check.passed]:
                lines = "; ".join(check.line() for check in failed)
                raise ExportError(f"the bundle is not equal to the model: {lines}")
            write_manifest(folder, manifest, tuple(check.to_dict() for check in checks))
    return ExportResult(Bundle.load(out), checks)
