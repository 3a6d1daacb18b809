"""Compares what two backends coded, by the files that `gpu_jobs.py code` left."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

FLIPPED = 0.5
"""A latent's value that differs by more was another symbol."""


def compare(reference: Path, other: Path) -> dict[str, Any]:
    """Figures of all pictures: equal files, latents, pixels, predictions; the worst picture counts."""
    rows = [_compared(path, other / path.name) for path in sorted(reference.glob("*.npz"))]
    tasks = {name: [row["top1"][name] for row in rows if name in row["top1"]] for name in _tasks(rows)}
    psnrs = [row["psnr"] for row in rows if row["psnr"] is not None]
    return {
        "pictures": len(rows),
        "equal_files": sum(row["equal_file"] for row in rows),
        "largest_latent_difference": max(row["latent"] for row in rows),
        "share_of_other_symbols": max(row["flipped"] for row in rows),
        "least_psnr_between_images": min(psnrs) if psnrs else None,
        "largest_pixel_difference": max(row["pixel"] for row in rows),
        "top1_agreement": {name: float(np.mean(values)) for name, values in tasks.items()},
    }


def _tasks(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["top1"]))


def _compared(reference: Path, other: Path) -> dict[str, Any]:
    a, b = np.load(reference), np.load(other)
    latent = np.abs(a["y_hat"] - b["y_hat"])
    pixels = np.abs(a["image"].astype(np.int16) - b["image"].astype(np.int16))
    error = float(np.mean(pixels.astype(np.float64) ** 2))
    shared = [name for name in a.files if name.startswith("task_") and name in b.files]
    return {
        "equal_file": reference.with_suffix(".polc").read_bytes() == other.with_suffix(".polc").read_bytes(),
        "latent": float(latent.max()),
        "flipped": float(np.mean(latent > FLIPPED)),
        "pixel": int(pixels.max()),
        "psnr": 10 * math.log10(255**2 / error) if error else None,
        "top1": {name: float(np.mean(a[name].argmax(0) == b[name].argmax(0))) for name in shared},
    }
