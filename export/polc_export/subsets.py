"""Parts of bundles: only the graphs that decoding, encoding or single tasks need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polc_runtime.bundle import Manifest
from polc_runtime.errors import UsageError

from .bundle_folder import files_of

DECODE, ENCODE = "decode", "encode"


def subset(manifest: Manifest, uses: Sequence[str]) -> Manifest:
    """What is left of a bundle that is to serve some uses alone; its notes say so.

    Args:
        manifest: of the whole bundle.
        uses: `DECODE`, `ENCODE`, or names of tasks, to be predicted from latents; none for everything.

    Raises:
        UsageError: there is no such task.
    """
    if not uses:
        return manifest
    tasks = [manifest.task(use) for use in uses if use not in (DECODE, ENCODE)]
    wanted = set(manifest.plan.exact_graphs) | {task.graph for task in tasks}
    networks = [manifest.variant(None), *manifest.variants]
    if DECODE in uses:
        wanted |= {variant.synthesis for variant in networks}
    if ENCODE in uses:
        wanted |= {"hyper_analysis", *(variant.analysis for variant in networks)}
    return replace(
        manifest,
        graphs=tuple(graph for graph in manifest.graphs if graph.name in wanted),
        tasks=tuple(replace(task, pixels=False) for task in tasks),
        notes=(*manifest.notes, f"a part of the bundle, for {', '.join(uses)} alone"),
    )


def cut(folder: Path, manifest: Manifest, uses: Sequence[str]) -> Manifest:
    """As `subset`, and deletes the files that are no longer needed from the bundle's folder.

    Raises:
        UsageError: as `subset`.
    """
    left = subset(manifest, uses)
    kept = {stored.file for stored in files_of(left)}
    for stored in files_of(manifest):
        if stored.file not in kept:
            (folder / stored.file).unlink()
    return left


def check_uses(uses: Sequence[str], tasks: Sequence[str]) -> None:
    """Raises UsageError unless every use is `DECODE`, `ENCODE` or one of the tasks."""
    if unknown := [use for use in uses if use not in (DECODE, ENCODE, *tasks)]:
        raise UsageError(
            f"there is no use {unknown[0]!r} to make a part of the bundle for; there are "
            f"{', '.join((DECODE, ENCODE, *tasks))}"
        )
