"""The times of an operation by stage, and their ratios to what bounds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...bitstream.plan import CodingPlan
from ...bundle import Manifest
from ...codec.latent import ENTROPY, SYMBOLS
from .flops import graph_flops, padded_grid
from .instruments import Call, Lap
from .results import OperationTime, Pair, StageTime, Timing

ANALYSIS, SYNTHESIS = "analysis", "synthesis"
HYPER_ANALYSIS = "hyper_analysis"
"""Graph of the hyper-analysis; where it does not run, the analysis includes it."""

CONTEXT = "context steps"
"""What the coding steps are called together."""

_TRANSFORMS = {"compress": ANALYSIS, "decompress": SYNTHESIS, ANALYSIS: ANALYSIS, SYNTHESIS: SYNTHESIS}


@dataclass(frozen=True)
class Work:
    """What an operation processes, and the memory it took.

    Attributes:
        images: in one run.
        megapixels: of all of them, before padding.
        peak: most bytes of memory held; None if unknown.
        start: bytes held before the codec was loaded.
    """

    images: int
    megapixels: float
    peak: int | None
    start: int | None


def operation_time(
    operation: str,
    laps: Sequence[Lap],
    calls: Sequence[Call],
    manifest: Manifest,
    rate: Pair | None,
    work: Work,
) -> OperationTime:
    """Sums up the runs of an operation.

    Args:
        operation: its name.
        laps: its runs.
        calls: the graphs that each run calls, with the shapes of their inputs.
        manifest: of the bundle.
        rate: of matrix products, FLOP/s; None where the graphs run elsewhere than on the processor.
        work: what each run processes.
    """
    stages = _Stages(laps, _flops(calls, manifest), rate)
    names = tuple(dict.fromkeys(name for each in laps for name in each.stages))
    steps = tuple(name for name in names if name in manifest.plan.step_numbers)
    total = Timing.of([each.total for each in laps])
    return OperationTime(
        operation=operation,
        seconds=total,
        stages=tuple(stages.row(name, (name,)) for name in names),
        context_steps=stages.row(CONTEXT, steps) if steps else None,
        coding_steps=steps,
        ratios=_ratios(stages, names, manifest.plan, _TRANSFORMS.get(operation)),
        images_per_second=work.images / total.median,
        megapixels_per_second=work.megapixels / total.median,
        peak_bytes=work.peak,
        growth_bytes=None if work.peak is None or work.start is None else work.peak - work.start,
    )


@dataclass(frozen=True)
class _Stages:
    """Runs of an operation, from which rows of one or several stages are made."""

    laps: Sequence[Lap]
    flops: Mapping[str, float | None]
    rate: Pair | None

    def row(self, name: str, members: Sequence[str]) -> StageTime:
        seconds, flops, limit = self.seconds(members), self.flops_of(members), self.limit(members)
        whole = Timing.of([each.total for each in self.laps])
        return StageTime(
            stage=name,
            seconds=seconds,
            share=seconds.median / whole.median,
            device_seconds=self.device_seconds(members),
            gemm_flops=flops,
            gflops_per_second=None if flops is None else flops / seconds.median / 1e9,
            limit_seconds=limit,
            ratio=seconds.pair.over(limit),
        )

    def seconds(self, members: Sequence[str]) -> Timing:
        return Timing.of([sum(each.stages.get(name, 0.0) for name in members) for each in self.laps])

    def device_seconds(self, members: Sequence[str]) -> Timing | None:
        if not any(name in each.device for each in self.laps for name in members):
            return None
        return Timing.of([sum(each.device.get(name, 0.0) for name in members) for each in self.laps])

    def flops_of(self, members: Sequence[str]) -> float | None:
        found = [self.flops.get(name) for name in members]
        return None if None in found else sum(filter(None, found))

    def limit(self, members: Sequence[str]) -> Pair | None:
        """The seconds that the matrix work of graphs takes at the rate of matrix products."""
        flops = self.flops_of(members)
        if flops is None or self.rate is None:
            return None
        return Pair(flops / self.rate.median, flops / self.rate.best)


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


def _ratios(
    stages: _Stages, names: Sequence[str], plan: CodingPlan, transform: str | None
) -> dict[str, Pair | None]:
    """The ratios that an operation is judged by; None where there is nothing to divide by."""
    whole, context = stages.seconds(names).pair, stages.seconds([*plan.step_numbers]).pair
    ratios = {
        "context_to_whole": context.over(whole),
        "entropy_to_whole": stages.seconds((ENTROPY,)).pair.over(whole),
        "symbols_to_whole": stages.seconds((SYMBOLS,)).pair.over(whole),
    }
    if transform is None:
        return ratios
    limit, main = stages.limit((transform,)), stages.seconds((transform,)).pair
    entropy_networks = stages.seconds([*{*plan.exact_graphs, HYPER_ANALYSIS}]).pair
    return {
        f"{transform}_to_limit": main.over(limit),
        f"whole_to_{transform}_limit": whole.over(limit),
        f"context_and_hyper_to_{transform}": entropy_networks.over(main),
        **ratios,
    }
