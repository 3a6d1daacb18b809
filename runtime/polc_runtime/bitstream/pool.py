"""A small shared thread pool for work that releases the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from ..limits import MAX_STREAMS
from ..processors import default_threads

T = TypeVar("T")


def workers() -> int:
    """Threads that may work side by side, the calling one included."""
    return min(default_threads(), MAX_STREAMS)


def in_parallel(task: Callable[[int], T], count: int, *, parallel: bool = True) -> list[T]:
    """Results of `task(0)` to `task(count - 1)`, in order.

    With `parallel`, each of at most `workers()` threads takes a run of neighbouring tasks; the
    calling thread takes the first run, so it never only waits. Handing a run over costs about
    0.1 ms; below that much work pass False.

    Raises:
        Exception: Whatever the first failing task raises, after all have ended.
    """
    runs = min(workers(), count) if parallel else 1
    if runs <= 1:
        return [task(j) for j in range(count)]

    def run(k: int) -> list[T]:
        return [task(j) for j in range(k * count // runs, (k + 1) * count // runs)]

    futures = [_pool().submit(run, k) for k in range(1, runs)]
    try:
        results = run(0)
    finally:
        errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error
    for future in futures:
        results += future.result()
    return results


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=max(workers() - 1, 1), thread_name_prefix="polc-rans")


if hasattr(os, "register_at_fork"):
    # A forked child inherits the pool but not its threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
