"""Times as text and as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...bench.speed.ratios import folded
from ..console import printable
from .text import MISSING, aligned, table_csv

Facts = Mapping[str, Any]

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


def latency_text(document: Facts, every_step: bool = False) -> str:
    """Results in lines: a table for each configuration and operation, and its ratios.

    Args:
        document: as `polc-bench latency` writes it.
        every_step: a row for each context step, instead of one for all.
    """
    machine, bundle = document["machine"], document["bundle"]
    load = "" if machine["load"] is None else f", load {machine['load']:g}"
    head = (
        f"{bundle['name']}, quality {document['quality']:g}; {machine['processor']}, "
        f"{machine['usable_processors']} processors{load}; "
        f"{document['repeats']} runs after {document['warmup']}"
    )
    parts = [printable(head)]
    for each in document["configurations"]:
        parts.append(_configuration_text(each))
        parts += [_operation_text(operation, every_step) for operation in each["operations"]]
        parts += map(_pipeline_text, each["pipelines"])
    return "\n\n".join(parts)


def _configuration_text(each: Facts) -> str:
    sgemm = each["sgemm"]
    rate = (
        f"matrix products: {sgemm['limit_gflops']:.1f} GFLOP/s (best {sgemm['best_gflops']:.1f}), "
        f"{sgemm['limit_of']['library']} {'x'.join(map(str, sgemm['limit_of']['shape']))}"
    )
    attention = each["described"].get("attention")
    facts = f"coder {each['coder']}, {each['file_bytes']} bytes"
    lines = [printable(each["title"]), f"  {rate}"]
    lines.append(f"  attention {attention}, {facts}" if attention else f"  {facts}")
    if each["device_clock"] is not None:
        lines.append(f"  on {each['device']}, device times by {each['device_clock']}")
    return "\n".join(lines)


def _operation_text(operation: Facts, every_step: bool) -> str:
    seconds = operation["seconds"]
    peak, growth = operation["peak_bytes"], operation["growth_bytes"]
    grown = "" if growth is None else f" (grown by {growth / _MIB:.0f})"
    memory = "" if peak is None else f", peak {peak / _MIB:.0f} MiB{grown}"
    title = (
        f"  {operation['operation']}: median {_ms(seconds['median'])} ms (min {_ms(seconds['min'])}, "
        f"p90 {_ms(seconds['p90'])}, p99 {_ms(seconds['p99'])}), "
        f"{operation['images_per_second']:.3g} images/s, "
        f"{operation['megapixels_per_second']:.3g} MP/s{memory}"
    )
    stages = operation["stages"] if every_step else folded(operation)
    table = aligned([_STAGE_HEADING, *map(_stage_row, stages)])
    return "\n".join([title, table, *_ratio_lines(operation["ratios"])])


def _stage_row(stage: Facts) -> tuple[str, ...]:
    seconds, flops, ratio = stage["seconds"], stage["gemm_flops"], stage["ratio"]
    return (
        stage["stage"],
        _ms(seconds["median"]),
        _ms(seconds["min"]),
        _ms(seconds["p90"]),
        f"{100 * stage['share']:.1f} %",
        _device_ms(stage["device_seconds"] and stage["device_seconds"]["median"]),
        MISSING if flops is None else f"{flops / 1e9:.3f}",
        MISSING if flops is None else f"{stage['gflops_per_second']:.1f}",
        MISSING if ratio is None else f"{ratio['median']:.2f}",
    )


def _pipeline_text(each: Facts) -> str:
    busy = "" if each["device_busy"] is None else f", device busy {100 * each['device_busy']:.0f} %"
    title = (
        f"  {each['operation']}, {each['workers']} under way: {each['images_per_second']:.3g} images/s, "
        f"{each['megapixels_per_second']:.3g} MP/s, {each['speedup']:.2f} times one by one{busy}"
    )
    rows = [
        (
            stage["stage"],
            _ms(stage["seconds"]),
            f"{100 * stage['share']:.1f} %",
            _device_ms(stage["device_seconds"]),
        )
        for stage in each["stages"]
    ]
    return "\n".join([title, aligned([_PIPELINE_HEADING, *rows])])


def _ratio_lines(ratios: Facts) -> list[str]:
    found = {name: ratios[name] for name in RATIOS if ratios.get(name)}
    return [
        f"    {_ratio(name, ratio['median']):>7}  (best runs {_ratio(name, ratio['best'])})  {RATIOS[name]}"
        for name, ratio in found.items()
    ]


def _ratio(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name.endswith("_to_whole") else f"{value:.3f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def _device_ms(seconds: float | None) -> str:
    return MISSING if seconds is None else _ms(seconds)


def latency_csv(document: Facts) -> bytes:
    """A row for each configuration, operation and stage; the whole of an operation is the stage `whole`."""
    rows = []
    for each in document["configurations"]:
        head = {"bundle": document["bundle"]["name"], **_csv_head(each)}
        rates = {f"sgemm_{key}": each["sgemm"][key] for key in ("limit_gflops", "best_gflops")}
        for operation in each["operations"]:
            whole = {key: operation[key] for key in _WHOLE}
            rows.append({**head, **_csv_row(operation, "whole", operation["seconds"]), **rates, **whole})
            rows += [
                {
                    **head,
                    **_csv_row(operation, stage["stage"], stage["seconds"]),
                    **rates,
                    **_csv_stage(stage),
                }
                for stage in operation["stages"]
            ]
    return table_csv(rows)


def _csv_head(each: Facts) -> dict[str, Any]:
    picture = each["picture"]
    about = {"picture": picture["name"], "width": picture["width"], "height": picture["height"]}
    return {**about, **{key: each[key] for key in _SETTINGS}}


def _csv_row(operation: Facts, stage: str, seconds: Facts) -> dict[str, Any]:
    times = {f"{key}_seconds": value for key, value in seconds.items()}
    return {"operation": operation["operation"], "stage": stage, **times}


def _csv_stage(stage: Facts) -> dict[str, Any]:
    device = stage["device_seconds"]
    names = ("share", "gemm_flops", "attention_flops", "gflops_per_second")
    ratio = stage["ratio"] or {"median": None, "best": None}
    pair = {"ratio_to_limit": ratio["median"], "ratio_to_limit_best": ratio["best"]}
    on_device = {"device_median_seconds": None if device is None else device["median"]}
    return {**{name: stage[name] for name in names}, **pair, **on_device}
