"""Checkpoint to checkpoint: between this project's layout and the official one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polc import codec_id, load_checkpoint, save_checkpoint, save_official
from polc_runtime.errors import CheckpointError, UsageError


def convert_checkpoint(
    checkpoint: Path, out: Path, official_layout: bool = False, force: bool = False
) -> dict[str, Any]:
    """Rewrites a checkpoint, tasks and stored tables included; the file appears whole or not at all.

    Args:
        checkpoint: in either layout.
        out: `.safetensors`; for the official layout also a torch file such as `.pth.tar`.
        official_layout: write official key names.
        force: replace an existing file.

    Returns:
        Facts for a report: input, output, layout, parameters of the codec, codec_id, tasks.

    Raises:
        CheckpointError: the checkpoint is not usable, or has no place in the layout.
        UsageError: `out` exists or has another suffix.
    """
    if not official_layout and out.suffix != ".safetensors":
        raise UsageError(f"{out}: this project's layout is written as .safetensors")
    if out.exists() and not force:
        raise UsageError(f"{out} exists; replace it with force=True")
    loaded = load_checkpoint(checkpoint)
    if official_layout and len(loaded.tasks) > 1:
        names = ", ".join(loaded.tasks)
        raise CheckpointError(f"{checkpoint} holds the tasks {names}; the official layout has place for one")
    if official_layout:
        task = next(iter(loaded.tasks.values()), None)
        save_official(out, loaded.codec, loaded.stored_tables, task)
    else:
        save_checkpoint(out, loaded.codec, loaded.metadata, loaded.stored_tables, loaded.tasks)
    return {
        "input": str(checkpoint),
        "output": str(out),
        "layout": "official" if official_layout else "polc",
        "parameters": sum(p.numel() for p in loaded.codec.parameters()),
        "codec_id": codec_id(loaded.codec).hex(),
        "tasks": list(loaded.tasks),
    }
