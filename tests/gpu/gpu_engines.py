"""Steps of `gpu_check.py` that build TensorRT's engines."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

from gpu_check import Check, Facts, Failure, Overtime
from gpu_needs import need_gpu, need_graphs, need_trt_python

PLUGIN = "POLC_TRT_PLUGIN"
LOGS = "engine_logs.tar.gz"
"""What TensorRT said of the builds, and the engines' sidecars; a few MB."""

CODING = ("analysis", "synthesis")


def engines(precision: str, check: Check, batch: int = 1, graphs: Sequence[str] = ()) -> Facts:
    """Builds engines for the sizes that are measured; without the plugin where it cannot be done with it.

    Args:
        precision: fp32 or fp16.
        check: what the steps share.
        batch: pictures at once.
        graphs: names of the graphs; none for all.
    """
    need_gpu()
    need_trt_python(check)
    need_graphs(check, precision, "tensorrt")

    def build() -> Facts:
        return _built(precision, check, batch, graphs)

    try:
        facts = build()
        if _lacks_coding(facts) and _has_plugin(check):
            facts = {**check.without(PLUGIN, "none", build), "failed_with_plugin": facts["failed"]}
    except Overtime:
        raise
    except Failure as error:  # the process ended, perhaps inside a kernel
        if not _has_plugin(check):
            raise
        facts = {**check.without(PLUGIN, "none", build), "failed_with_plugin": str(error)}
    finally:
        keep_logs(check)
    if facts["failed"]:
        raise Failure(facts["failed"], facts)
    return facts


def keep_logs(check: Check) -> None:
    """Puts the logs of all builds so far among the results: the work may be gone later."""
    root = check.work / "cache/engines"
    with tarfile.open(check.out / LOGS, "w:gz") as archive:
        for path in sorted([*root.rglob("*.log"), *root.rglob("*.json")]):
            archive.add(path, path.relative_to(root))


def _built(precision: str, check: Check, batch: int, graphs: Sequence[str]) -> Facts:
    sizes = [tuple(-(-int(side) // 64) * 64 for side in size.split("x")) for size in check.options.sizes]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    usual, largest = f"{sizes[0][1]}x{sizes[0][0]}", f"{height}x{width}"
    shapes = {"min_shape": "192x192", "opt_shape": usual, "max_shape": largest, "batch": str(batch)}
    bundle = check.options.bundle
    return check.job("engines", trt=True, bundle=bundle, precision=precision, graphs=list(graphs), **shapes)


def _lacks_coding(facts: Facts) -> bool:
    starts = tuple(f"FAIL {graph} " for graph in CODING)
    return any(line.startswith(starts) for line in facts["lines"])


def _has_plugin(check: Check) -> bool:
    carried = any((check.trt_site / "polc_runtime").glob("libpolc_trt_plugin*"))
    return carried and check.variables.get(PLUGIN) != "none"
