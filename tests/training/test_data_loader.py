"""Loading is settled by seed, epoch and batch number: not by workers, restarts or ranks."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from polc_runtime.errors import DataError
from polc_training.data.loader import Loader, Loading, make_loader, report_once


class Numbers:
    """Samples that are their index and two random numbers; some cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int, generator: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.rand(2, generator=generator)
        if index in self.broken:
            raise DataError(f"number {index}: is broken")
        return torch.tensor(index), noise


def batches(loader: Loader) -> list[tuple[Tensor, ...]]:
    return [tuple(batch) for batch in loader]


def indexes(loader: Loader) -> list[list[int]]:
    return [batch[0].tolist() for batch in loader]


def equal(first: list[tuple[Tensor, ...]], second: list[tuple[Tensor, ...]]) -> bool:
    pairs = zip(chain(*first), chain(*second), strict=True)
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in pairs)


def test_two_workers_give_the_batches_of_none() -> None:
    here = batches(make_loader(Numbers(21), Loading(4, seed=5), epoch=2))
    there = batches(make_loader(Numbers(21), Loading(4, seed=5, workers=2), epoch=2))
    assert len(here) == 5
    assert equal(here, there)


def test_an_epoch_resumed_at_a_batch_gives_the_rest_of_it() -> None:
    whole = batches(make_loader(Numbers(21), Loading(4, seed=5)))
    rest = make_loader(Numbers(21), Loading(4, seed=5), start_batch=3)
    assert len(rest) == 2
    assert equal(batches(rest), whole[3:])
    assert batches(make_loader(Numbers(21), Loading(4, seed=5), start_batch=5)) == []


def test_two_ranks_partition_every_batch_of_one() -> None:
    one = indexes(make_loader(Numbers(24), Loading(8, seed=1)))
    two = [indexes(make_loader(Numbers(24), Loading(4, seed=1, rank=rank, world_size=2))) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*two, strict=True)] == [sorted(batch) for batch in one]
    assert sorted(chain(*two[0], *two[1])) == list(range(24))


def test_a_sample_is_the_same_whichever_rank_draws_it() -> None:
    one = {int(i): noise for i, noise in zip(*next(iter(make_loader(Numbers(8), Loading(8)))), strict=True)}
    for rank in (0, 1):
        for index, noise in zip(
            *next(iter(make_loader(Numbers(8), Loading(4, rank=rank, world_size=2)))), strict=True
        ):
            assert torch.equal(noise, one[int(index)])


@pytest.mark.parametrize(("count", "sizes"), [(10, [2, 2]), (13, [2, 2, 2]), (8, [2, 2])])
def test_with_drop_last_every_rank_has_as_many_full_batches(count: int, sizes: list[int]) -> None:
    for rank in (0, 1):
        loader = make_loader(Numbers(count), Loading(2, rank=rank, world_size=2))
        assert [len(batch) for batch in indexes(loader)] == sizes


def test_without_drop_last_every_sample_comes_once_in_all() -> None:
    ranks = [
        indexes(make_loader(Numbers(11), Loading(4, rank=r, world_size=2, drop_last=False))) for r in (0, 1)
    ]
    assert sorted(chain(*ranks[0], *ranks[1])) == list(range(11))


def test_order_and_augmentation_change_with_seed_and_epoch() -> None:
    orders = {
        (s, e): indexes(make_loader(Numbers(32), Loading(32, s), epoch=e))[0] for s in (0, 1) for e in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    assert all(sorted(order) == list(range(32)) for order in orders.values())
    first, second = (
        batches(make_loader(Numbers(4), Loading(4, 0, shuffle=False), epoch=e))[0] for e in (0, 1)
    )
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_without_shuffling_samples_come_in_order() -> None:
    assert indexes(make_loader(Numbers(6), Loading(2, shuffle=False))) == [[0, 1], [2, 3], [4, 5]]


def test_samples_draw_differently_from_one_another() -> None:
    _, noise = next(iter(make_loader(Numbers(500), Loading(500))))
    assert len(np.unique(noise.numpy())) > 990
    assert abs(noise.mean() - 0.5) < 0.05


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_leaves_the_global_generator_alone(workers: int) -> None:
    before = torch.get_rng_state()
    batches(make_loader(Numbers(8), Loading(4, workers=workers)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_is_reported_once_and_replaced_by_the_next(workers: int) -> None:
    said: list[str] = []
    loader = make_loader(
        Numbers(6, broken=(1, 2, 5)), Loading(3, shuffle=False, workers=workers), report=said.append
    )
    assert indexes(loader) == [[0, 3, 3], [3, 4, 0]]
    assert sorted(said) == [f"number {index}: is broken; it is skipped" for index in (1, 2, 5)]


def test_a_replacement_draws_as_the_sample_it_replaces() -> None:
    whole, broken = (
        batches(make_loader(Numbers(6, b), Loading(6), report=lambda _: None)) for b in ((), (1,))
    )
    assert torch.equal(whole[0][1], broken[0][1])


def test_by_default_an_unreadable_sample_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (0, 1):
        batches(make_loader(Numbers(4, broken=(2,)), Loading(2), epoch=epoch))
    assert caplog.messages == ["number 2: is broken; it is skipped"]
    report_once("something else")
    assert caplog.messages[1:] == ["something else"]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_readable_sample_is_an_error(workers: int) -> None:
    said: list[str] = []
    loader = make_loader(Numbers(3, broken=(0, 1, 2)), Loading(2, workers=workers), report=said.append)
    with pytest.raises(
        DataError, match="^none of the 3 samples can be read; the first: number .: is broken$"
    ):
        batches(loader)
    assert len(said) == 3


def test_too_few_samples_for_a_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="a batch takes 8 samples, but there are 7"):
        make_loader(Numbers(7), Loading(4, world_size=2))
    with pytest.raises(DataError, match="no samples"):
        make_loader(Numbers(0), Loading(4))


@pytest.mark.parametrize(
    ("loading", "place", "message"),
    [
        ({}, {"start_batch": 5}, "start_batch in 0..4, got 5"),
        ({}, {"epoch": -1}, "epoch >= 0"),
        ({"rank": 2, "world_size": 2}, {}, "got rank=2"),
        ({"workers": -1}, {}, "workers >= 0"),
        ({"batch_size": 0}, {}, "batch_size >= 1"),
        ({"seed": -1}, {}, "seed >= 0"),
    ],
)
def test_numbers_out_of_range_are_refused(
    loading: dict[str, int], place: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_loader(Numbers(8), Loading(**{"batch_size": 2, **loading}), **place)
