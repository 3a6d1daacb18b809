"""Batches that depend on the seed, the epoch and the batch number alone: not on workers, nor on a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import click
import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

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
    """Prints a line on standard error the first time it comes."""
    if message not in _reported:
        _reported.add(message)
        click.echo(message, err=True)


def seeded(*numbers: int) -> Generator:
    """A CPU generator seeded by all of the numbers, each 0 or more."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0] >> np.uint64(1)))


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of 0..count-1 that (seed, epoch) settles."""
    return torch.randperm(count, generator=seeded(_ORDER, seed, epoch)).tolist()


class EpochBatches(Sampler[list[int]]):
    """Indexes of one epoch's batches, for one of several ranks, from a given batch on.

    Rank r takes every world_size-th index from the r-th on. With `drop_last` every rank has the same number
    of batches, all full; without, the ranks together have each index once, and the last batch may be short.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        epoch: int,
        start_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        shuffle: bool = True,
    ) -> None:
        """See `make_loader`, whose arguments and errors these are; `count` is the number of samples."""
        _check_numbers(batch_size, seed, epoch, rank, world_size)
        order = epoch_order(count, seed, epoch) if shuffle else list(range(count))
        if drop_last:
            full = batch_size * world_size
            if count < full:
                raise DataError(
                    f"a batch takes {full} samples, but there are {count}; make the batch smaller"
                )
            order = order[: count // full * full]
        mine = order[rank::world_size]
        batches = [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]
        if not 0 <= start_batch <= len(batches):
            raise ValueError(f"expected start_batch in 0..{len(batches)}, got {start_batch}")
        self.batches = batches[start_batch:]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


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
        told: set[int] = set()
        for batch, failures in self._batches:
            for index, message in failures:
                if index not in told:
                    told.add(index)
                    self._report(f"{message}; it is skipped")
            if batch is None:
                raise DataError(
                    f"none of the {len(failures)} samples can be read; the first: {failures[0][1]}"
                )
            yield batch


def make_loader(
    dataset: Samples,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    start_batch: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = True,
    shuffle: bool = True,
    report: Report = report_once,
) -> Loader:
    """Loads one epoch, or the rest of it, the same way whenever, wherever and in how many processes it runs.

    The order depends on (seed, epoch), a sample's augmentation on (seed, epoch, index) alone; torch's global
    generator is left as it is. A sample that cannot be read is reported, once, and the next index that can
    be read takes its place, so that batches keep their size.

    Args:
        dataset: what to load.
        batch_size: samples in a batch, on each rank.
        seed: of the whole run, 0 or more.
        epoch: from 0.
        start_batch: how many batches of the epoch to leave out, those already trained on.
        workers: processes that read; 0 reads in this one.
        rank: which part of the epoch to load, 0..world_size-1.
        world_size: how many parts there are.
        drop_last: leave out the samples that fill no batch on every rank.
        shuffle: draw a new order each epoch; else the order of the indexes.
        report: takes one line for each sample that cannot be read; by default a line on standard error.

    Raises:
        DataError: the dataset does not fill a batch, or, while iterating, none of its samples can be read.
        ValueError: a number is out of its range.
    """
    count = len(dataset)
    if count == 0:
        raise DataError("there are no samples to load")
    if workers < 0:
        raise ValueError(f"expected workers >= 0, got {workers}")
    sampler = EpochBatches(count, batch_size, seed, epoch, start_batch, rank, world_size, drop_last, shuffle)
    batches: DataLoader[Any] = DataLoader(
        _Epoch(dataset, seed, epoch),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        generator=Generator(),  # else a seed for the workers is drawn from torch's global generator
    )
    return Loader(batches, report)


def _check_numbers(batch_size: int, seed: int, epoch: int, rank: int, world_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"expected batch_size >= 1, got {batch_size}")
    if seed < 0 or epoch < 0:
        raise ValueError(f"expected seed and epoch >= 0, got {seed} and {epoch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"expected rank in 0..world_size-1, got rank={rank}, world_size={world_size}")


class _Item(NamedTuple):
    """A sample, None where there is none to be had, and what could not be read on the way to it."""

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
