"""Where torch runs a model: the device, what is fixed there, its clock, and the base of backends on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from polc_runtime.backends import CUDA, BackendBase, BackendOptions, GraphClock
from polc_runtime.errors import BackendUnavailable

_NO_DRIVER = "install NVIDIA's driver"
_NO_SUPPORT = "pip install torch from https://pytorch.org, built with CUDA"


def resolve_device(name: str, backend: str) -> torch.device:
    """The device of a name, `cpu` or `cuda`, with torch set up so that fp32 on it means fp32.

    On CUDA, for the whole process, TF32 is switched off and cuDNN takes deterministic algorithms that it does
    not choose by timing.

    Args:
        name: of `polc_runtime.backends.DEVICES`.
        backend: that wants it, for the message.

    Raises:
        BackendUnavailable: torch finds no CUDA device.
    """
    if name == CUDA:
        if not torch.cuda.is_available():
            what = _NO_DRIVER if torch.version.cuda else _NO_SUPPORT
            raise BackendUnavailable(
                f"the backend {backend} cannot run on cuda: torch {torch.__version__} finds no CUDA device; "
                f"{what}, or choose --device cpu"
            )
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
    return torch.device(name)


def use_threads(threads: int | None) -> None:
    """Sets torch's number of CPU threads, which is the whole process's; None leaves it as it is."""
    if threads is not None and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


class DeviceBackend(BackendBase, GraphClock):
    """A backend that torch runs on one device, and which times graphs there.

    Args:
        options: how to run.
        device: where the graphs run; CUDA events on its stream time them, on the CPU the host's clock.
    """

    def __init__(self, options: BackendOptions, device: torch.device) -> None:
        BackendBase.__init__(self, options)
        GraphClock.__init__(self)
        self.torch_device = device
        self.device = device.type
        self.clock = "CUDA events" if device.type == CUDA else "host clock"

    def describe(self) -> dict[str, Any]:
        """Name, version, precision, threads and device; of a GPU also its name."""
        gpu = {"gpu": torch.cuda.get_device_name(self.torch_device)} if self.device == CUDA else {}
        return {**super().describe(), "version": torch.__version__, "device": self.device, **gpu}

    @contextmanager
    def timing(self, graph: str) -> Iterator[None]:
        """Times a run of a graph, if anybody asked."""
        if not self.timed:
            yield
        elif self.device == CUDA:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            end.synchronize()
            self.add_seconds(graph, begin.elapsed_time(end) / 1000)
        else:
            started = time.perf_counter()
            yield
            self.add_seconds(graph, time.perf_counter() - started)
