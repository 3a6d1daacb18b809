"""`extend_bundle`: makes a bundle of another from its ONNX files alone, without PyTorch: formats, parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polc_runtime import Bundle
from polc_runtime.errors import ExportError, UsageError

from .bundle_folder import atomic_folder, check_target, copy_bundle, write_manifest
from .checks import Check, Report, require_passed, sample_photo
from .formats import INSTALL, add_formats, complete
from .options import ExportOptions
from .subsets import cut, subset


def extend_bundle(
    bundle: Path,
    out: Path | None,
    options: ExportOptions,
    report: Report = lambda line: None,
) -> tuple[Bundle, tuple[Check, ...]]:
    """Adds the formats that a bundle lacks, or takes the part of it that some uses need.

    Where it lacks nothing and is to stay in place, nothing is done.

    Args:
        bundle: the bundle.
        out: where to write; None for in place, which takes `options.force`.
        options: how to; `formats`, `subset`, `validate`, `photo`, `name` and `force` matter.
        report: called with a line of progress at a time.

    Returns:
        The bundle, where it now is, and the checks of what was added.

    Raises:
        BundleError: `bundle` is damaged.
        UsageError: an option takes a checkpoint, a part is to be written in place, or there is no such part.
        ExportError: a graph has no such format, a check fails, `out` exists, or a package is missing.
    """
    if options.opset is not None or options.quality is not None:
        raise UsageError(
            "opset=... and quality=... take a checkpoint: a bundle's graphs keep what they were exported with"
        )
    base = Bundle.load(bundle)
    if options.subset and out is None:
        raise UsageError("a part of a bundle is written to another folder: name it by out=...")
    subset(base.manifest, options.subset)
    renamed = options.name not in (None, base.name)
    if out is None and complete(base.manifest, options.formats) and not renamed:
        report(f"{base.path} holds these formats already")
        return base, ()
    target = out or base.path
    check_target(target, options.force)
    photo = sample_photo(options.photo) if options.validate and options.formats else None
    checks: tuple[Check, ...] = ()
    with atomic_folder(target, options.force) as folder:
        manifest = replace(copy_bundle(folder, base), name=options.name or base.name)
        manifest, added = add_formats(folder, manifest, options.formats, report)
        if photo is not None and added:
            try:
                from .validation.formats import validate_formats
            except ImportError as error:
                raise ExportError(
                    f"{error.name}, which the formats are compared in, is not installed: {INSTALL}, or leave "
                    "the comparison out"
                ) from None
            made = validate_formats(Bundle(folder, manifest), added, photo, report)
            checks = require_passed(made, report)
        write_manifest(folder, cut(folder, manifest, options.subset), checks)
    return Bundle.load(target), checks
