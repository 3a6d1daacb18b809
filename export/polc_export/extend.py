"""`extend_bundle`: adds variants of graphs to a bundle from its ONNX files, without PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from polc_runtime import Bundle
from polc_runtime.errors import ExportError

from .bundle_folder import appearing, check_target, copy_bundle, write_manifest
from .formats import INSTALL, Variants, add_variants, complete
from .validation.checks import Check, Report, passed, sample_photo


def extend_bundle(
    bundle: Path,
    out: Path | None,
    wanted: Variants,
    report: Report = lambda line: None,
    *,
    validate: bool = True,
    photo: Path | None = None,
    name: str | None = None,
    force: bool = False,
) -> tuple[Bundle, tuple[Check, ...]]:
    """Adds the variants that a bundle lacks; where it lacks none and is to stay in place, nothing is done.

    Args:
        bundle: the bundle.
        out: where to write; None for in place, which takes `force`.
        wanted: which variants it is to hold.
        report: called with a line of progress at a time.
        validate: whether the variants are compared with the float32 graphs.
        photo: image to validate on; None for the one that matplotlib carries.
        name: what the bundle calls the model; None for what it calls it now.
        force: whether an existing bundle is replaced.

    Returns:
        The bundle, where it now is, and the checks of what was added.

    Raises:
        BundleError: `bundle` is damaged.
        ExportError: a graph has no such variant, a check fails, `out` exists, or a package is missing.
    """
    base = Bundle.load(bundle)
    if out is None and complete(base.manifest, wanted) and name in (None, base.name):
        report(f"{base.path} holds these variants already")
        return base, ()
    target = out or bundle
    check_target(target, force)
    pixels = sample_photo(photo) if validate else None
    checks: tuple[Check, ...] = ()
    with appearing(target, force) as folder:
        manifest = replace(copy_bundle(folder, base), name=name or base.name)
        manifest, added = add_variants(folder, manifest, wanted, report)
        if pixels is not None and added:
            try:
                from .validation.formats import validate_variants
            except ImportError as error:
                raise ExportError(
                    f"{error.name}, which the variants are compared in, is not installed: {INSTALL}, or pass "
                    "--no-validate"
                ) from None
            checks = passed(validate_variants(Bundle(folder, manifest), added, pixels, report), report)
        write_manifest(folder, manifest, checks)
    return Bundle.load(target), checks
