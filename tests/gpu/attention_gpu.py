"""Neighbourhood attention on a CUDA device: polc's kernel, NATTEN's and flex_attention against memory.

Usage: python tests/gpu/attention_gpu.py [--out FILE] [--only polc,natten,flex] [--repeats 50]
       [--size 256x384] [--channels 128]

For each type, head_dim and kernel_size it prints and writes the median time by CUDA events, the time that
reading q, k, v and writing the result must take at the speed of a copy on this device, measured by this
process, and the largest error against float64. The cache is overwritten before each run. What is missing is
skipped, and named. The file is written again after each measurement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polc.attention import KERNELS, cuda
from polc_runtime.errors import BackendUnavailable, first_line

DTYPES = {"float32": torch.float32, "float16": torch.float16}
HEAD_DIMS, KERNEL_SIZES = (16, 32, 64), (3, 7)
WARM_UP = 5
COPIED = 1 << 29
"""Bytes of the copy that measures the memory's speed, and of what is written to empty the cache."""

Call = Callable[[], Tensor]
Document = dict[str, Any]


class Skipped(Exception):
    """Why something is not measured here."""


@dataclass(frozen=True)
class Problem:
    """One problem: q, k, v [1,H,W,heads,dim] and rpb on the device.

    Attributes:
        q: queries.
        k: keys.
        v: values.
        rpb: relative position bias [heads,2k-1,2k-1], float32.
        kernel_size: k.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    rpb: Tensor
    kernel_size: int

    @property
    def scale(self) -> float:
        """Factor on q.k."""
        return float(self.q.shape[-1] ** -0.5)

    @property
    def bytes(self) -> int:
        """What must be read and written, once."""
        return 4 * self.q.nbytes

    def exact(self, bias: bool) -> Tensor:
        """The result in float64, by the tiled kernel."""
        q, k, v, rpb = (t.double() for t in (self.q, self.k, self.v, self.rpb))
        return KERNELS["tiled"](q, k, v, rpb if bias else None, self.kernel_size, self.scale)


def polc_call(p: Problem) -> tuple[Call, bool]:
    """This project's CUDA kernel."""
    try:
        cuda.load()
    except BackendUnavailable as error:
        raise Skipped(first_line(error)) from None
    return lambda: cuda.na2d_cuda(p.q, p.k, p.v, p.rpb, p.kernel_size, p.scale), True


def natten_call(p: Problem) -> tuple[Call, bool]:
    """NATTEN's fused kernel: with the bias up to 0.17.5, which took one, later without."""
    try:
        import natten
        from natten.functional import na2d
    except ImportError as error:
        raise Skipped(f"NATTEN is not importable: {first_line(error)}") from None
    if hasattr(natten, "use_fused_na"):
        natten.use_fused_na(True)
        rpb = p.rpb.to(p.q.dtype)
        return lambda: na2d(p.q, p.k, p.v, kernel_size=p.kernel_size, rpb=rpb, scale=p.scale), True
    return lambda: na2d(p.q, p.k, p.v, kernel_size=p.kernel_size, scale=p.scale), False


def flex_call(p: Problem) -> tuple[Call, bool]:
    """flex_attention, compiled, on tensors that lie heads first, as it likes them."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    _, height, width, _, _ = p.q.shape
    k = p.kernel_size

    def start(query: Tensor, length: int) -> Tensor:
        return (query - k // 2).clamp(0, length - k)

    def attends(_b: Tensor, _h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        rows = key // width - start(query // width, height)
        columns = key % width - start(query % width, width)
        return (rows >= 0) & (rows < k) & (columns >= 0) & (columns < k)

    def with_bias(score: Tensor, _b: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        rows = (key // width - query // width + k - 1).clamp(0, 2 * k - 2)
        columns = (key % width - query % width + k - 1).clamp(0, 2 * k - 2)
        return score + p.rpb[head, rows, columns]

    mask = create_block_mask(attends, None, None, height * width, height * width, "cuda", _compile=True)
    q, keys, v = (t.flatten(1, 2).transpose(1, 2).contiguous() for t in (p.q, p.k, p.v))
    compiled = torch.compile(flex_attention, dynamic=False)
    shape = p.q.shape

    def call() -> Tensor:
        out = compiled(q, keys, v, score_mod=with_bias, block_mask=mask, scale=p.scale)
        return out.transpose(1, 2).view(shape)

    return call, True


CALLS: dict[str, Callable[[Problem], tuple[Call, bool]]] = {
    "polc": polc_call,
    "natten": natten_call,
    "flex": flex_call,
}
"""What is measured: each gives a call and whether it has the bias in it, or raises `Skipped`."""


@dataclass(frozen=True)
class Row:
    """One measurement; times in milliseconds, `ratio` over `bound_ms`, `bias` whether the kernel adds rpb."""

    implementation: str
    dtype: str
    head_dim: int
    kernel_size: int
    bias: bool
    ms: float
    bound_ms: float
    ratio: float
    max_error: float


def median_ms(call: Callable[[], Any], repeats: int) -> float:
    """Median of single runs between two CUDA events, each queued behind a write that empties the cache."""
    emptier = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    times = []
    for i in range(WARM_UP + repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        emptier.fill_(i % 256)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[WARM_UP:])


def copy_bandwidth(repeats: int) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    source, target = (torch.empty(COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    return 2 * COPIED / (1e-3 * median_ms(lambda: target.copy_(source), repeats))


def problems(height: int, width: int, channels: int) -> Iterator[tuple[str, int, int, Problem]]:
    """Random problems, with their type, head_dim and kernel_size."""
    for name, dtype in DTYPES.items():
        for dim in HEAD_DIMS:
            for k in KERNEL_SIZES:
                generator = torch.Generator("cuda").manual_seed(0)
                shape = (3, 1, height, width, channels // dim, dim)
                q, keys, v = torch.randn(shape, generator=generator, device="cuda").to(dtype)
                rpb = torch.randn((shape[4], 2 * k - 1, 2 * k - 1), generator=generator, device="cuda")
                yield name, dim, k, Problem(q, keys, v, rpb, k)


def measure(options: argparse.Namespace, keep: Callable[[Document], None]) -> Document:
    """Everything there is to measure, one kernel after the other, as a JSON document; `keep` gets each state.

    After an error of the device nothing more can be measured in this process: it is raised, once it is kept.
    """
    height, width = map(int, options.size.split("x"))
    speed = copy_bandwidth(options.repeats)
    rows: list[Document] = []
    skipped: dict[str, str] = {}
    document = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "size": [height, width],
        "channels": options.channels,
        "repeats": options.repeats,
        "copy_gb_s": speed / 1e9,
        "rows": rows,
        "skipped": skipped,
    }
    for name in options.only:
        for dtype, dim, k, problem in problems(height, width, options.channels):
            try:
                call, bias = CALLS[name](problem)
                error = float((call().double() - problem.exact(bias)).abs().max())
                ms = median_ms(call, options.repeats)
            except Skipped as reason:
                skipped[name] = str(reason)
            except Exception as failure:  # others' kernels refuse what they please
                skipped[f"{name} {dtype} head_dim {dim} kernel_size {k}"] = first_line(failure)
            else:
                bound = 1e3 * problem.bytes / speed
                rows.append(asdict(Row(name, dtype, dim, k, bias, ms, bound, ms / bound, error)))
                print(
                    f"{name:7} {dtype} head_dim {dim} kernel_size {k}: {ms:.3f} ms, {ms / bound:.2f} x bound"
                )
            keep(document)
            if name in skipped:
                break
            torch.cuda.synchronize()
    return document


def names(text: str) -> list[str]:
    """Kernels by name, with commas between them."""
    found = text.split(",")
    if unknown := [name for name in found if name not in CALLS]:
        raise argparse.ArgumentTypeError(f"no kernel is named {', '.join(unknown)}")
    return found


def main() -> int:
    """Measures, prints a line each, and writes the document; 2 without a CUDA device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--only", type=names, default=list(CALLS), help="some of polc, natten, flex")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--size", default="256x384")
    parser.add_argument("--channels", type=int, default=128)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device: attention_gpu.py measures nothing here", file=sys.stderr)
        return 2

    def keep(document: Document) -> None:
        if options.out:
            part = options.out.with_suffix(".part")
            part.write_text(json.dumps(document, indent=2) + "\n")
            part.replace(options.out)

    with torch.no_grad():
        document = measure(options, keep)
    for name, reason in document["skipped"].items():
        print(f"skipped {name}: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
