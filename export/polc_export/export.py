"""`export_bundle`: checkpoints to a validated bundle, as one call; the command line calls it too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polc import Checkpoint, CodecModel, codec_id, load_checkpoint
from polc.backends.torchscript import TorchScriptBackend
from polc_runtime import Bundle
from polc_runtime.backends import BackendOptions
from polc_runtime.bundle import Manifest
from polc_runtime.errors import UsageError
from polc_runtime.pictures.images import Pixels

from .bundle_folder import atomic_folder, check_target, copy_bundle, write_manifest
from .checks import Check, Report, require_passed, sample_photo
from .formats import add_formats
from .onnx.opsets import DEFAULT_OPSET
from .options import ExportOptions, Stage2, TaskOptions, VariantSource
from .subsets import check_uses, cut
from .tasks import TaskExport, load_stage2, task_exports
from .validation.codec import validate, validate_variant
from .validation.formats import validate_formats
from .validation.tasks import validate_tasks
from .validation.tolerances import measure_tolerances
from .variants import VariantExport, add_variants, load_variants
from .writer import add_tasks, add_torchscript, write_bundle


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
    """Where a bundle goes by default: beside the checkpoint, `model.pth.tar` -> `model.bundle`."""
    return checkpoint.with_name(model_name(checkpoint) + ".bundle")


def model_name(checkpoint: Path) -> str:
    """A checkpoint's file name without its endings."""
    return checkpoint.name.split(".")[0] or checkpoint.name


def export_bundle(
    stage1: Path | None = None,
    out: Path | None = None,
    options: ExportOptions | None = None,
    report: Report = lambda line: None,
    *,
    stage2: Sequence[Stage2] = (),
    variants: Sequence[VariantSource] = (),
    bundle: Path | None = None,
) -> ExportResult:
    """Exports checkpoints to a bundle that appears whole, validated, or not at all.

    The codec is that of `stage1`, or of `bundle`, or else the backbone of the first of `stage2`.

    Args:
        stage1: checkpoint of a codec, of any family and layout.
        out: the bundle's folder; None for `bundle` itself, or for one beside the checkpoint.
        options: how to export.
        report: called with a line of progress at a time.
        stage2: checkpoints of tasks to add, each with the same codec as backbone.
        variants: checkpoints of image networks to add to `bundle`, each with the same entropy path.
        bundle: a bundle to add to.

    Raises:
        CheckpointError: a checkpoint is not usable, a backbone is another codec, or a variant's entropy path
            is not the bundle's.
        BundleError: `bundle` is damaged.
        UsageError: the arguments do not fit together.
        ExportError: a graph cannot be exported or a check fails; nothing is left behind.
    """
    options = options or ExportOptions()
    _check_arguments(stage1, stage2, variants, bundle, options)
    base = None if bundle is None else Bundle.load(bundle)
    out = out or (base.path if base else default_bundle_path(stage1 or stage2[0].path))
    check_target(out, options.force)
    photo = sample_photo(options.photo) if options.validate else None
    with_tasks = load_stage2(stage2, options.tasks)
    checkpoint = load_checkpoint(stage1) if stage1 is not None else with_tasks[0] if with_tasks else None
    if stage1 is not None and checkpoint is not None and checkpoint.tasks:
        report(f"{stage1} holds tasks too ({', '.join(checkpoint.tasks)}), which are not exported")
    added = _Added.of(checkpoint, base, with_tasks, variants, options)
    checks: tuple[Check, ...] = ()
    with atomic_folder(out, options.force) as folder:
        manifest = _start(folder, base, checkpoint, options, report)
        manifest = added.write(folder, manifest, options, report)
        manifest, derived = add_formats(folder, manifest, options.formats, report)
        if photo is not None:
            made = Bundle(folder, manifest)
            if added.codec is not None:
                codec_checks = validate(made, added.codec, photo, report)
                tolerances = measure_tolerances(codec_checks, made, added.codec, photo, report)
                manifest = replace(manifest, tolerances=tolerances)
                checks = require_passed(codec_checks, report)
            checks += added.validate(made, options, photo, report)
            checks += require_passed(validate_formats(made, derived, photo, report), report)
        write_manifest(folder, cut(folder, manifest, options.subset), checks)
    return ExportResult(Bundle.load(out), checks)


def _check_arguments(
    stage1: Path | None,
    stage2: Sequence[Stage2],
    variants: Sequence[VariantSource],
    bundle: Path | None,
    options: ExportOptions,
) -> None:
    if options.tasks != TaskOptions() and not stage2:
        raise UsageError(
            "family, labels and with_pixels are about tasks: pass a checkpoint of stage2=... too"
        )
    if variants and bundle is None:
        raise UsageError("variants are added to a bundle: name it by bundle=...")
    if stage1 is None and not stage2 and not variants:
        if bundle is not None and options.torchscript:
            raise UsageError(
                "TorchScript is traced from the PyTorch model, which a bundle does not hold: pass stage1=... "
                "in place of bundle=..., or stage2=... too"
            )
        needed = "stage1=... or stage2=..."
        if bundle is not None:
            needed = "stage2=... or a variant, or ask for fp16, TensorRT or a subset, to add to the bundle"
        raise UsageError(f"nothing to export: pass {needed}")
    if stage1 is not None and bundle is not None:
        raise UsageError("stage1=... and bundle=... both bring a codec; pass one of them")
    if options.quality is not None and bundle is not None:
        raise UsageError("quality=... is about a codec's checkpoint; a bundle keeps its quality")


def _start(
    folder: Path, base: Bundle | None, checkpoint: Checkpoint | None, options: ExportOptions, report: Report
) -> Manifest:
    """Puts a codec into an empty folder: that of a bundle, as it is, or that of a checkpoint."""
    if base is not None:
        manifest = copy_bundle(folder, base)
        return replace(manifest, name=options.name or manifest.name)
    if checkpoint is None or checkpoint.path is None:
        raise ValueError("the checkpoint was not read from a file")
    tables, origin = checkpoint.tables()
    report(origin)
    name = options.name or model_name(checkpoint.path)
    notes = tuple(checkpoint.metadata.get("notes", ()))
    opset = options.opset or DEFAULT_OPSET
    return write_bundle(folder, checkpoint.codec, tables, name, options.quality, opset, notes, report)


@dataclass(frozen=True)
class _Added:
    """What PyTorch models add to a bundle.

    Attributes:
        codec: the bundle's, if its graphs are exported now.
        backbone: of the tasks: the bundle's codec.
        tasks: to add.
        variants: to add.
    """

    codec: CodecModel | None
    backbone: CodecModel | None
    tasks: list[TaskExport]
    variants: list[VariantExport]

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint | None,
        base: Bundle | None,
        with_tasks: Sequence[Checkpoint],
        variants: Sequence[VariantSource],
        options: ExportOptions,
    ) -> _Added:
        """What the arguments of `export_bundle` ask for."""
        codec = None if checkpoint is None else checkpoint.codec
        taken = [] if base is None else [task.name for task in base.manifest.tasks]
        tasks: list[TaskExport] = []
        if codec is not None:
            identity = codec_id(codec) if base is None else base.manifest.codec_id
            tasks = task_exports(with_tasks, identity, taken, options.tasks)
        check_uses(options.subset, [*taken, *(task.entry.name for task in tasks)])
        found = [] if base is None else load_variants(variants, base)
        return cls(codec if base is None else None, codec, tasks, found)

    def write(self, folder: Path, manifest: Manifest, options: ExportOptions, report: Report) -> Manifest:
        """Exports the graphs of tasks and variants, and traces everything where that is asked for."""
        opset = options.opset or DEFAULT_OPSET
        manifest = add_tasks(folder, manifest, self.tasks, opset, report)
        manifest = add_variants(folder, manifest, self.variants, opset, report)
        if not options.torchscript:
            return manifest
        codec = [] if self.backbone is None else [self.backbone.graphs()]
        groups = [*codec, *(task.specs() for task in self.tasks), *(v.specs() for v in self.variants)]
        return add_torchscript(
            folder, manifest, [spec for group in groups for spec in group.values()], report
        )

    def validate(
        self, made: Bundle, options: ExportOptions, photo: Pixels, report: Report
    ) -> tuple[Check, ...]:
        """Every check of tasks and variants, and of the TorchScript files once more."""
        backends: list[TorchScriptBackend | None] = [None]
        if options.torchscript:
            backends.append(TorchScriptBackend(made, BackendOptions()))
        checks: tuple[Check, ...] = ()
        for backend in backends:
            if backend is not None and self.backbone is not None:
                checks += require_passed(validate(made, self.backbone, photo, report, backend), report)
            if self.tasks and self.backbone is not None:
                found = validate_tasks(made, self.backbone, self.tasks, photo, report, backend)
                checks += require_passed(found, report)
            for variant in self.variants:
                found = validate_variant(made, variant.entry.name, variant.model, photo, report, backend)
                checks += require_passed(found, report)
        return checks
