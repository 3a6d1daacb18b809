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

from .bundle_folder import appearing, check_target, copy_bundle, write_manifest
from .formats import Variants, add_variants
from .onnx.opsets import DEFAULT_OPSET
from .tasks import Stage2, TaskExport, TaskOptions, load_stage2, task_exports
from .validation.checks import Check, Report, passed, sample_photo
from .validation.codec import validate
from .validation.formats import validate_variants
from .validation.tasks import validate_tasks
from .validation.tolerances import measure_tolerances
from .writer import add_tasks, add_torchscript, write_bundle


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        opset: of the default ONNX domain.
        validate: whether to compare the bundle with PyTorch.
        photo: image to validate on; None for the one that matplotlib carries.
        name: of the model; None for the checkpoint's file name, or the name of the bundle that is added to.
        force: whether an existing bundle is replaced.
        tasks: how tasks are exported.
        torchscript: whether every graph is traced for TorchScript too.
        variants: what to derive from the ONNX files: float16 graphs, and graphs for TensorRT.
    """

    opset: int = DEFAULT_OPSET
    validate: bool = True
    photo: Path | None = None
    name: str | None = None
    force: bool = False
    tasks: TaskOptions = TaskOptions()
    torchscript: bool = False
    variants: Variants = Variants()


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
    stage1: Path | None = None,
    out: Path | None = None,
    options: ExportOptions | None = None,
    report: Report = lambda line: None,
    *,
    stage2: Sequence[Stage2] = (),
    bundle: Path | None = None,
) -> ExportResult:
    """Exports checkpoints to a bundle that appears whole, validated, or not at all.

    The codec is that of `stage1`, or of `bundle`, or else the backbone of the first of `stage2`.

    Args:
        stage1: checkpoint of a codec, in either layout.
        out: the bundle's folder; None for `bundle` itself, or for one beside the checkpoint.
        options: how to export.
        report: called with a line of progress at a time.
        stage2: checkpoints of tasks to add, each with the same codec as backbone.
        bundle: a bundle to add them to.

    Raises:
        CheckpointError: a checkpoint is not usable, or a backbone is another codec.
        BundleError: `bundle` is damaged.
        UsageError: the arguments do not fit together.
        ExportError: a graph cannot be exported or a check fails; nothing is left behind.
    """
    options = options or ExportOptions()
    _check_arguments(stage1, stage2, bundle, options)
    out = out or bundle or default_bundle_path(stage1 or stage2[0].path)
    check_target(out, options.force)
    photo = sample_photo(options.photo) if options.validate else None
    base = None if bundle is None else Bundle.load(bundle)
    with_tasks = load_stage2(stage2, options.tasks)
    checkpoint = with_tasks[0] if stage1 is None else load_checkpoint(stage1)
    identity = codec_id(checkpoint.codec) if base is None else base.manifest.codec_id
    if stage1 is not None and checkpoint.tasks:
        report(
            f"{stage1} holds tasks too ({', '.join(checkpoint.tasks)}); pass it as --stage2 to export them"
        )
    taken = [] if base is None else [task.name for task in base.manifest.tasks]
    tasks = task_exports(with_tasks, identity, taken, options.tasks)
    checks: tuple[Check, ...] = ()
    with appearing(out, options.force) as folder:
        manifest = _start(folder, base, checkpoint, options, report)
        manifest = add_tasks(folder, manifest, tasks, options.opset, report)
        if options.torchscript:
            specs = [checkpoint.codec.graphs(), *(task.specs() for task in tasks)]
            graphs = [spec for group in specs for spec in group.values()]
            manifest = add_torchscript(folder, manifest, graphs, report)
        manifest, added = add_variants(folder, manifest, options.variants, report)
        if photo is not None:
            made = Bundle(folder, manifest)
            if base is None:
                codec_checks = validate(made, checkpoint.codec, photo, report)
                tolerances = measure_tolerances(codec_checks, made, checkpoint.codec, photo, report)
                manifest = replace(manifest, tolerances=tolerances)
                checks = passed(codec_checks, report)
            checks += passed(validate_tasks(made, checkpoint.codec, tasks, photo, report), report)
            if options.torchscript:
                checks += _validate_torchscript(made, checkpoint.codec, tasks, photo, report)
            checks += passed(validate_variants(made, added, photo, report), report)
            write_manifest(folder, manifest, checks)
    return ExportResult(Bundle.load(out), checks)


def _check_arguments(
    stage1: Path | None, stage2: Sequence[Stage2], bundle: Path | None, options: ExportOptions
) -> None:
    if options.tasks != TaskOptions() and not stage2:
        raise UsageError("--family, --labels and --with-pixels are about tasks; pass --stage2 CKPT too")
    if stage1 is None and not stage2:
        if bundle is not None and options.torchscript:
            raise UsageError(
                "--format torchscript traces the PyTorch model, which a bundle does not hold; pass "
                "--stage1 CKPT in place of --bundle, or --stage2 CKPT too"
            )
        needed = "--stage1 CKPT or --stage2 CKPT"
        if bundle is not None:
            needed = "--stage2 CKPT, --precision fp16 or --format tensorrt to add to the bundle"
        raise UsageError(f"nothing to export: pass {needed}")
    if stage1 is not None and bundle is not None:
        raise UsageError("--stage1 and --bundle both bring a codec; pass one of them")


def _start(
    folder: Path, base: Bundle | None, checkpoint: Checkpoint, options: ExportOptions, report: Report
) -> Manifest:
    """Puts a codec into an empty folder: that of a bundle, as it is, or that of a checkpoint."""
    if base is not None:
        manifest = copy_bundle(folder, base)
        return replace(manifest, name=options.name or manifest.name)
    if checkpoint.path is None:
        raise ValueError("the checkpoint was not read from a file")
    tables, origin = checkpoint.tables()
    report(origin)
    name = options.name or model_name(checkpoint.path)
    notes = tuple(checkpoint.metadata.get("notes", ()))
    return write_bundle(folder, checkpoint.codec, tables, name, options.opset, notes, report)


def _validate_torchscript(
    made: Bundle, codec: CodecModel, tasks: Sequence[TaskExport], photo: Pixels, report: Report
) -> tuple[Check, ...]:
    """The same checks, of the TorchScript files."""
    backend = TorchScriptBackend(made, BackendOptions())
    checks = passed(validate(made, codec, photo, report, backend), report)
    return checks + passed(validate_tasks(made, codec, tasks, photo, report, backend), report)
