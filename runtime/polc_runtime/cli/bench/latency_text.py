"""Times as text and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..console import printable
from .text import MISSING, aligned, table_csv

if TYPE_CHECKING:
    from ...bench.speed.results import (
        ConfigurationTime,
        Latency,
        OperationTime,
        Pair,
        StageTime,
        Throughput,
        Timing,
    )

_MIB = 2**20

RATIOS = {
    "analysis_to_limit": "analysis, as a multiple of its GEMM limit",
    "synthesis_to_limit": "synthesis, as a multiple of its GEMM limit",
    "whole_to_analysis_limit": "whole, as a multiple of the analysis' GEMM limit",
    "whole_to_synthesis_limit": "whole, as a multiple of the synthesis' GEMM limit",
    "context_and_hyper_to_analysis": "context steps and hyper nets, of the analysis' time",
    "context_and_hyper_to_synthesis": "context steps and hyper nets, of the synthesis' time",
    "context_to_whole": "context steps, of the whole",
    "entropy_to_whole": "entropy coding, of the whole",
    "symbols_to_whole": "symbols and tables, of the whole",
}
"""The ratios of an operation, in words."""

_STAGE_HEADING = (
    "stage",
    "median ms",
    "min ms",
    "p90 ms",
    "share",
    "device ms",
    "GFLOP",
    "GFLOP/s",
    "x limit",
)
_PIPELINE_HEADING = ("stage", "ms an image", "of the workers' time", "device ms")

_SETTINGS = ("backend", "device", "attention", "precision", "threads", "batch", "quality")
_WHOLE = ("images_per_second", "megapixels_per_second", "peak_bytes", "growth_bytes")


def latency_text(found: Latency, every_step: bool = False) -> str:
    """Results in lines: a table for each configuration and operation, and its ratios.

    Args:
        found: what was measured.
        every_step: a row for each coding step, instead of one for all.
    """
    load = "" if found.machine["load"] is None else f", load {found.machine['load']:g}"
    head = (
        f"{found.bundle['name']}, quality {found.quality:g}; {found.machine['processor']}, "
        f"{found.machine['usable_processors']} processors{load}; {found.repeats} runs after {found.warmup}"
    )
    parts = [printable(head)]
    for each in found.configurations:
        parts.append(_configuration_text(each))
        parts += [_operation_text(operation, every_step) for operation in each.operations]
        parts += map(_pipeline_text, each.pipelines)
    return "\n\n".join(parts)


def _configuration_text(each: ConfigurationTime) -> str:
    sgemm = each.sgemm
    rate = (
        f"matrix products: {sgemm.limit_gflops:.1f} GFLOP/s (best {sgemm.best_gflops:.1f}), "
        f"{sgemm.limit_of['library']} {'x'.join(map(str, sgemm.limit_of['shape']))}"
    )
    attention = each.described.get("attention")
    facts = f"coder {each.coder}, {each.file_bytes} bytes"
    lines = [printable(each.configuration.title), f"  {rate}"]
    lines.append(f"  attention {attention}, {facts}" if attention else f"  {facts}")
    if each.device_clock is not None:
        lines.append(f"  on {each.device}, device times by {each.device_clock}")
    return "\n".join(lines)


def _operation_text(operation: OperationTime, every_step: bool) -> str:
    seconds, peak, growth = operation.seconds, operation.peak_bytes, operation.growth_bytes
    grown = "" if growth is None else f" (grown by {growth / _MIB:.0f})"
    memory = "" if peak is None else f", peak {peak / _MIB:.0f} MiB{grown}"
    title = (
        f"  {operation.operation}: median {_ms(seconds.median)} ms (min {_ms(seconds.min)}, "
        f"p90 {_ms(seconds.p90)}, p99 {_ms(seconds.p99)}), {operation.images_per_second:.3g} images/s, "
        f"{operation.megapixels_per_second:.3g} MP/s{memory}"
    )
    stages = operation.stages if every_step else operation.folded()
    table = aligned([_STAGE_HEADING, *map(_stage_row, stages)])
    return "\n".join([title, table, *_ratio_lines(operation.ratios)])


def _stage_row(stage: StageTime) -> tuple[str, ...]:
    flops, rate, device = stage.gemm_flops, stage.gflops_per_second, stage.device_seconds
    return (
        stage.stage,
        _ms(stage.seconds.median),
        _ms(stage.seconds.min),
        _ms(stage.seconds.p90),
        f"{100 * stage.share:.1f} %",
        MISSING if device is None else _ms(device.median),
        MISSING if flops is None else f"{flops / 1e9:.3f}",
        MISSING if rate is None else f"{rate:.1f}",
        MISSING if stage.ratio is None else f"{stage.ratio.median:.2f}",
    )


def _pipeline_text(each: Throughput) -> str:
    busy = "" if each.device_busy is None else f", device busy {100 * each.device_busy:.0f} %"
    title = (
        f"  {each.operation}, {each.workers} at once: {each.images_per_second:.3g} images/s, "
        f"{each.megapixels_per_second:.3g} MP/s, {each.speedup:.2f} times one by one{busy}"
    )
    rows = [
        (
            stage.stage,
            _ms(stage.seconds),
            f"{100 * stage.share:.1f} %",
            MISSING if stage.device_seconds is None else _ms(stage.device_seconds),
        )
        for stage in each.stages
    ]
    return "\n".join([title, aligned([_PIPELINE_HEADING, *rows])])


def _ratio_lines(ratios: Mapping[str, Pair | None]) -> list[str]:
    known = ((name, text, ratios.get(name)) for name, text in RATIOS.items())
    return [
        f"    {_ratio(name, ratio.median):>7}  (best runs {_ratio(name, ratio.best)})  {text}"
        for name, text, ratio in known
        if ratio is not None
    ]


def _ratio(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name.endswith("_to_whole") else f"{value:.3f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def latency_csv(found: Latency) -> bytes:
    """A row for each configuration, operation and stage; the whole of an operation is the stage `whole`."""
    rows = []
    for each in found.configurations:
        head = {"bundle": found.bundle["name"], **_csv_head(each)}
        sgemm = each.sgemm
        rates = {"sgemm_limit_gflops": sgemm.limit_gflops, "sgemm_best_gflops": sgemm.best_gflops}
        for operation in each.operations:
            start = {**head, "operation": operation.operation}
            whole = {name: getattr(operation, name) for name in _WHOLE}
            rows.append({**start, **_csv_times("whole", operation.seconds), **rates, **whole})
            rows += [
                {**start, **_csv_times(stage.stage, stage.seconds), **rates, **_csv_stage(stage)}
                for stage in operation.stages
            ]
    return table_csv(rows)


def _csv_head(each: ConfigurationTime) -> dict[str, Any]:
    configuration, picture = each.configuration, each.configuration.picture
    about = {"picture": picture.name, "width": picture.width, "height": picture.height}
    settings = {name: getattr(configuration, name) for name in _SETTINGS}
    return {**about, **settings, "device": each.device}


def _csv_times(stage: str, seconds: Timing) -> dict[str, Any]:
    return {"stage": stage, **{f"{name}_seconds": value for name, value in vars(seconds).items()}}


def _csv_stage(stage: StageTime) -> dict[str, Any]:
    ratio, device = stage.ratio, stage.device_seconds
    return {
        **{name: getattr(stage, name) for name in ("share", "gemm_flops", "gflops_per_second")},
        "ratio_to_limit": None if ratio is None else ratio.median,
        "ratio_to_limit_best": None if ratio is None else ratio.best,
        "device_median_seconds": None if device is None else device.median,
    }
