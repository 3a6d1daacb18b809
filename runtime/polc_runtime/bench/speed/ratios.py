"""What the times of an operation come to: each stage's spread and rate, and ratios to what bounds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...bundle import Manifest
from ...codec.latent import ENTROPY, SYMBOLS
from .flops import graph_flops, padded_grid
from .stopwatch import Call, Lap, spread

ANALYSIS, SYNTHESIS = "analysis", "synthesis"
HYPER = ("hyper_analysis", "hyper_synthesis")
"""Graphs of the hyper networks; where there is no hyper_analysis, the analysis includes it."""

CONTEXT = "context steps"
"""The nine steps of the context model together."""

_TRANSFORMS = {"compress": ANALYSIS, "decompress": SYNTHESIS, ANALYSIS: ANALYSIS, SYNTHESIS: SYNTHESIS}
_CPU = "cpu"


class Pair(NamedTuple):
    """Seconds, or a ratio: of medians, and of the best runs alone."""

    median: float
    best: float

    def over(self, other: Pair | None) -> dict[str, float] | None:
        """The ratio to another, as JSON-able data; None where there is none to compare with."""
        if other is None or not other.median or not other.best:
            return None
        return {"median": self.median / other.median, "best": self.best / other.best}


def is_context(stage: str) -> bool:
    """Whether a stage is one of the nine steps of the context model."""
    return stage.startswith("context_")


def folded(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of an operation, with the nine context steps as one."""
    rows: list[Mapping[str, Any]] = []
    together = operation["context_steps"]
    for stage in operation["stages"]:
        if not is_context(stage["stage"]):
            rows.append(stage)
        elif together not in rows:
            rows.append(together)
    return rows


def operation_facts(
    operation: str,
    laps: Sequence[Lap],
    calls: Sequence[Call],
    manifest: Manifest,
    sgemm: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """The times of an operation as JSON-able data, with FLOPs, rates and ratios.

    Args:
        operation: its name.
        laps: its runs.
        calls: the graphs that each run calls, with the shapes of their inputs.
        manifest: the bundle's, which states the arithmetic of its graphs.
        sgemm: the rates of matrix products on the processor, as `Sgemm.to_dict` has them.
        device: where the graphs ran; there is no limit but for `cpu`.
    """
    total = spread([each.total for each in laps])
    flops = _flops(calls, manifest)
    rate = Pair(1e9 * sgemm["limit_gflops"], 1e9 * sgemm["best_gflops"]) if device == _CPU else None

    def row(name: str, members: Sequence[str]) -> dict[str, Any]:
        seconds = _spread(laps, members)
        limit = _limit(_total(flops, members), rate)
        return {
            "stage": name,
            "seconds": seconds,
            "share": seconds["median"] / total["median"],
            "device_seconds": _device_spread(laps, members),
            **_arithmetic(_total(flops, members), seconds["median"]),
            "limit_seconds": limit and limit._asdict(),
            "ratio": _pair(seconds).over(limit),
        }

    names = list(dict.fromkeys(name for each in laps for name in each.stages))
    steps = [name for name in names if is_context(name)]
    transform = _TRANSFORMS.get(operation)
    limit = _limit(flops.get(transform or ""), rate)
    return {
        "operation": operation,
        "seconds": total,
        "stages": [row(name, [name]) for name in names],
        "context_steps": row(CONTEXT, steps) if steps else None,
        "ratios": _ratios(laps, names, transform, limit),
    }


def _spread(laps: Sequence[Lap], members: Sequence[str]) -> dict[str, float]:
    """The spread of the time that some stages take together."""
    return spread([sum(each.stages.get(name, 0.0) for name in members) for each in laps])


def _device_spread(laps: Sequence[Lap], members: Sequence[str]) -> dict[str, float] | None:
    """The same of the time on the device, by its own clock; None where it did not time them."""
    if not any(name in each.device for each in laps for name in members):
        return None
    return spread([sum(each.device.get(name, 0.0) for name in members) for each in laps])


def _total(flops: Mapping[str, float | None], members: Sequence[str]) -> float | None:
    found = [flops.get(name) for name in members]
    return None if None in found else sum(filter(None, found))


def _flops(calls: Sequence[Call], manifest: Manifest) -> dict[str, float | None]:
    """The arithmetic of each graph over all its runs; None where it is not known."""
    found: dict[str, float | None] = {}
    for graph, shapes in calls:
        grid = padded_grid(manifest, shapes)
        batch = next(iter(shapes.values()))[0]
        flops = graph_flops(manifest, graph, *grid, batch) if grid else None
        before = found.get(graph, 0.0)
        found[graph] = None if flops is None or before is None else before + flops
    return found


def _limit(flops: float | None, rate: Pair | None) -> Pair | None:
    """The seconds that the matrix work of a graph takes at the rate of matrix products."""
    if flops is None or rate is None:
        return None
    return Pair(flops / rate.median, flops / rate.best)


def _arithmetic(flops: float | None, seconds: float) -> dict[str, float | None]:
    if flops is None:
        return {"gemm_flops": None, "gflops_per_second": None}
    return {"gemm_flops": flops, "gflops_per_second": flops / seconds / 1e9}


def _pair(seconds: Mapping[str, float]) -> Pair:
    return Pair(seconds["median"], seconds["min"])


def _ratios(
    laps: Sequence[Lap], names: Sequence[str], transform: str | None, limit: Pair | None
) -> dict[str, dict[str, float] | None]:
    """The ratios that an operation is judged by; None where there is nothing to divide by."""

    def of(*wanted: str) -> Pair:
        return _pair(_spread(laps, [name for name in names if name in wanted]))

    whole, steps = of(*names), [name for name in names if is_context(name)]
    ratios = {
        "context_to_whole": of(*steps).over(whole),
        "entropy_to_whole": of(ENTROPY).over(whole),
        "symbols_to_whole": of(SYMBOLS).over(whole),
    }
    if transform is None:
        return ratios
    return {
        f"{transform}_to_limit": of(transform).over(limit),
        f"whole_to_{transform}_limit": whole.over(limit),
        f"context_and_hyper_to_{transform}": of(*steps, *HYPER).over(of(transform)),
        **ratios,
    }
