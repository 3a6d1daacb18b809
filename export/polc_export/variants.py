"""Variants of a bundle: the image networks of other checkpoints that share its entropy path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from polc import Checkpoint, CodecModel, codec_id, fingerprint, load_checkpoint
from polc.checkpoint import MAX_TABLE_DIFFERENCE
from polc.graphs import GraphSpec
from polc.macs import macs_per_pixel
from polc.tables import largest_difference
from polc_runtime import Bundle
from polc_runtime.bitstream.tables import EntropyTables
from polc_runtime.bundle import Manifest, Variant
from polc_runtime.errors import CheckpointError

from .bundle_folder import write_manifest
from .checks import Report
from .onnx.opsets import DEFAULT_OPSET
from .options import VariantSource
from .writer import add_graphs


@dataclass(frozen=True)
class VariantExport:
    """A variant to export: its entry in the manifest and its model."""

    entry: Variant
    model: CodecModel

    def specs(self) -> dict[str, GraphSpec]:
        """The graphs to export, by name."""
        graphs = self.model.graphs()
        names = {"analysis": self.entry.analysis, "synthesis": self.entry.synthesis}
        return {new: replace(graphs[old], name=new) for old, new in names.items()}


def load_variants(sources: Sequence[VariantSource], bundle: Bundle) -> list[VariantExport]:
    """The variants to add to a bundle.

    Args:
        sources: names and checkpoints.
        bundle: that they are to share the entropy path of.

    Raises:
        CheckpointError: a checkpoint is not usable, or its entropy path is not the bundle's; or a variant of
            that name is there already.
    """
    if not sources:
        return []
    manifest, tables = bundle.manifest, bundle.entropy_tables()
    taken = [variant.name for variant in manifest.variants]
    found = []
    for source in sources:
        if source.name in taken:
            raise CheckpointError(
                f"{source.path}: a variant named {source.name} is there already; give this one another name"
            )
        taken.append(source.name)
        checkpoint = load_checkpoint(source.path)
        if different := list(_differences(checkpoint, manifest, tables)):
            raise CheckpointError(
                f"{source.path}: its entropy path is not that of the bundle {manifest.name}, whose files it "
                f"would have to share; these differ: {', '.join(different)}"
            )
        entry = Variant(
            source.name, f"analysis_{source.name}", f"synthesis_{source.name}", codec_id(checkpoint.codec)
        )
        found.append(VariantExport(entry, checkpoint.codec))
    return found


def add_variants(
    folder: Path,
    manifest: Manifest,
    variants: Sequence[VariantExport],
    opset: int = DEFAULT_OPSET,
    report: Report = lambda line: None,
) -> Manifest:
    """Exports the image networks of variants into a bundle's folder.

    Args:
        folder: where the bundle's files are.
        manifest: what it says.
        variants: what to add.
        opset: of the default ONNX domain.
        report: called with a line for each file written.

    Raises:
        ExportError: a graph could not be exported.
    """
    for variant in variants:
        specs = variant.specs()
        manifest = add_graphs(folder, manifest, specs.values(), opset, report)
        macs = {**manifest.plan.macs, **macs_per_pixel(specs, manifest.plan.pad)}
        manifest = replace(
            manifest,
            plan=replace(manifest.plan, macs=macs),
            variants=(*manifest.variants, variant.entry),
        )
    write_manifest(folder, manifest)
    return manifest


def _differences(checkpoint: Checkpoint, manifest: Manifest, tables: EntropyTables) -> Iterator[str]:
    """What of a checkpoint's entropy path is not the bundle's, in words."""
    ours, theirs = checkpoint.codec.plan.layout(), manifest.plan.layout()
    yield from (f"{key} of the coding plan" for key in theirs if ours[key] != theirs[key])
    own, _ = checkpoint.tables()
    for name in ("hyper", "latent"):
        difference = largest_difference(getattr(own, name), getattr(tables, name))
        if difference is None or difference > MAX_TABLE_DIFFERENCE:
            yield f"the tables of the {name}"
    if ours == theirs and fingerprint(checkpoint.codec, tables) != manifest.fingerprint:
        yield f"weights of the entropy model ({', '.join(checkpoint.codec.decoding)}) or medians"
