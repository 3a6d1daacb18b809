"""How much arithmetic each graph of a codec is, from the manifest and the image's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...bundle import Manifest


def graph_flops(manifest: Manifest, graph: str, height: int, width: int, batch: int = 1) -> float | None:
    """Floating-point operations of one run of a graph, two for a multiplication and its addition.

    Args:
        manifest: whose coding plan states the multiply-accumulates per pixel.
        graph: its name in the bundle.
        height: of the padded image, in pixels.
        width: likewise.
        batch: images in one run.

    Returns:
        None where the plan does not state it.
    """
    macs = manifest.plan.macs.get(graph)
    return None if macs is None else 2 * macs * height * width * batch


def padded_grid(manifest: Manifest, inputs: Mapping[str, Sequence[int]]) -> tuple[int, int] | None:
    """Height and width of the padded image, in pixels, from the shapes of a graph's inputs by name."""
    for name, stride in manifest.plan.strides.items():
        if name in inputs:
            return stride * inputs[name][-2], stride * inputs[name][-1]
    return None
