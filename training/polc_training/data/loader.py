"""Batches that depend on the seed, the epoch and the batch number alone: not on workers, nor on a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from polc_runtime.errors import DataError, PolcError

Batch = Sequence[Tensor]
Report = Callable[[str], None]

_ORDER, _SAMPLE = 0, 1
_reported: set[str] = set()


class Samples(Protocol):
    """What can be loaded: numbered samples, each random only through the generator it is given."""

    def __len__(self) -> int: ...

    def sample(self, index: int, generator: Generator) -> tuple[Tensor, ...]:
        """Sample number `index`; a PolcError if it cannot be read."""
        ...


def report_once(message: str) -> None:
    """Logs a warning the first time it comes; where logging is not set up, a line on standard error."""
    if message not in _reported:
        _reported.add(message)
        logging.getLogger(__name__).warning(message)


def seeded(*numbers: int) -> Generator:
    """A CPU generator seeded by all of the numbers, each 0 or more."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0] >> np.uint64(1)))


@dataclass(frozen=True)
class Loading:
    """How samples become batches.

    Attributes:
        batch_size: samples in a batch, on each rank.
        seed: of the whole run, 0 or more.
        workers: processes that read; 0 reads in this one.
        rank: which part of each epoch to load, 0..world_size-1.
        world_size: how many parts there are.
        drop_last: leave out the samples that fill no batch on every rank.
        shuffle: draw a new order each epoch; else the order of the indexes.

    Raises:
        ValueError: a number is out of its range.
    """

    batch_size: int
    seed: int = 0
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    drop_last: bool = True
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name, least in {"batch_size": 1, "seed": 0, "workers": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least}, got {getattr(self, name)}")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(
                f"expected rank in 0..world_size-1, got rank={self.rank}, world_size={self.world_size}"
            )


def epoch_batches(count: int, loading: Loading, epoch: int = 0, start_batch: int = 0) -> list[list[int]]:
    """Indexes of one epoch's batches of `count` samples, for one of several ranks, from a given batch on.

    Rank r takes every world_size-th index from the r-th on. With `drop_last` every rank has the same number
    of batches, all full; without, the ranks together have each index once, and the last batch may be short.
    Errors are those of `make_loader`.
    """
    order = list(range(count))
    if loading.shuffle:
        order = torch.randperm(count, generator=seeded(_ORDER, loading.seed, epoch)).tolist()
    if loading.drop_last:
        full = loading.batch_size * loading.world_size
        if count < full:
            raise DataError(f"a batch takes {full} samples, but there are {count}; make the batch smaller")
        order = order[: count // full * full]
    mine, size = order[loading.rank :: loading.world_size], loading.batch_size
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    if not 0 <= start_batch <= len(batches):
        raise ValueError(f"expected start_batch in 0..{len(batches)}, got {start_batch}")
    return batches[start_batch:]


class Loader:
    """The batches of one epoch; made by `make_loader`."""

    def __init__(self, batches: DataLoader[Any], report: Report) -> None:
        self._batches, self._report = batches, report

    def __len__(self) -> int:
        """How many batches are left in the epoch, on this rank."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Batches: for each tensor of a sample, all of the batch stacked along a new first axis.

        Raises:
            DataError: no sample at all could be read.
        """
        reported: set[int] = set()
        for batch, failures in self._batches:
            for index, message in failures:
                if index not in reported:
                    reported.add(index)
                    self._report(f"{message}; it is skipped")
            if batch is None:
                raise DataError(
                    f"none of the {len(failures)} samples can be read; the first: {failures[0][1]}"
                )
            yield batch


def make_loader(
    dataset: Samples,
    loading: Loading,
    epoch: int = 0,
    start_batch: int = 0,
    report: Report = report_once,
) -> Loader:
    """Loads one epoch, or the rest of it, the same way whenever, wherever and in how many processes it runs.

    The order depends on (seed, epoch), a sample's augmentation on (seed, epoch, index) alone; torch's global
    generator is left as it is. A sample that cannot be read is reported, once, and the next index that can
    be read takes its place, so that batches keep their size.

    Args:
        dataset: what to load.
        loading: how.
        epoch: from 0.
        start_batch: how many batches of the epoch to leave out, those already trained on.
        report: takes one line for each sample that cannot be read; by default it is logged.

    Raises:
        DataError: the dataset does not fill a batch, or, while iterating, none of its samples can be read.
        ValueError: a number is out of its range.
    """
    if not len(dataset):
        raise DataError("there are no samples to load")
    if epoch < 0:
        raise ValueError(f"expected epoch >= 0, got {epoch}")
    batches: DataLoader[Any] = DataLoader(
        _Epoch(dataset, loading.seed, epoch),
        batch_sampler=epoch_batches(len(dataset), loading, epoch, start_batch),
        num_workers=loading.workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        generator=Generator(),  # else a seed for the workers is drawn from torch's global generator
    )
    return Loader(batches, report)


def first_batch(dataset: Samples, count: int, seed: int) -> Batch:
    """`count` samples of the first epoch, or all there are if they are fewer."""
    return next(iter(make_loader(dataset, Loading(count, seed, drop_last=False))))


def drawn(dataset: Samples, count: int, seed: int) -> list[tuple[Tensor, ...]]:
    """`count` samples drawn by the seed, in the order of their indexes, each as a batch of one."""
    chosen = torch.randperm(len(dataset), generator=seeded(seed))[:count].tolist()
    samples = (dataset.sample(index, seeded(seed, index)) for index in sorted(chosen))
    return [tuple(each[None] for each in sample) for sample in samples]


class _Item(NamedTuple):
    """A sample, None where none can be read, and the samples that could not be read before it."""

    sample: tuple[Tensor, ...] | None
    failures: list[tuple[int, str]]


class _Epoch(Dataset[_Item]):
    """The samples of one epoch, with their generators."""

    def __init__(self, samples: Samples, seed: int, epoch: int) -> None:
        self.samples, self.seed, self.epoch = samples, seed, epoch
        self.unreadable: dict[int, str] = {}

    def __getitem__(self, index: int) -> _Item:
        count = len(self.samples)
        failures: list[tuple[int, str]] = []
        for candidate in ((index + step) % count for step in range(count)):
            if candidate not in self.unreadable:
                try:
                    generator = seeded(_SAMPLE, self.seed, self.epoch, index)
                    return _Item(self.samples.sample(candidate, generator), failures)
                except PolcError as error:
                    self.unreadable[candidate] = str(error)
            failures.append((candidate, self.unreadable[candidate]))
        return _Item(None, failures)


def _collate(items: list[_Item]) -> tuple[Batch | None, list[tuple[int, str]]]:
    for item in items:
        if item.sample is None:
            return None, item.failures
    return default_collate([item.sample for item in items]), [f for item in items for f in item.failures]
