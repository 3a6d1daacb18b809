"""Many items on several threads: how many at once, whose networks run, in which order, and how they stop."""

import os
import threading
import time
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path

import pytest

from polc_runtime.codec.pipeline import NetworkLock, NetworkSlots
from polc_runtime.errors import Interrupted, PolcError
from polc_runtime.files.inputs import Source
from polc_runtime.files.outputs import Target
from polc_runtime.workers import in_order, reading

PATIENCE = 30


class Networks:
    """A backend whose graphs are functions of the item; counts how many run at once."""

    name = "functions"

    def __init__(self, work=lambda item: None):
        self.work, self.meeting, self.closed = work, Meeting(), False

    def run(self, graph, inputs):
        with self.meeting:
            return {"result": self.work(graph)}

    def describe(self):
        return {}

    def close(self):
        self.closed = True


class Meeting:
    """Counts how many are inside at once."""

    def __init__(self):
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *error):
        with self.lock:
            self.inside -= 1


def locked(networks, at_once=1):
    return NetworkLock(networks, NetworkSlots(at_once))


def values(items, do, workers=2):
    return [outcome.result() for outcome in in_order(items, do, workers)]


def workers_alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("polc-pipeline")]


def test_outcomes_keep_the_order_of_the_items():
    second_is_done = threading.Event()

    def do(item):
        if item == "a":
            assert second_is_done.wait(PATIENCE)
        else:
            second_is_done.set()
        return item

    assert values("ab", do) == ["a", "b"]


def test_the_next_item_is_read_while_the_networks_of_the_one_before_run():
    next_is_read = threading.Event()
    lock = locked(Networks(lambda item: next_is_read.wait(PATIENCE)))

    def do(item):
        if item == "b":
            next_is_read.set()
        return lock.run(item, {})["result"]

    assert values("ab", do) == [True, True]


def test_an_item_is_written_while_the_networks_of_the_next_run():
    next_computes = threading.Event()
    lock = locked(Networks(lambda item: next_computes.set() if item == "b" else None))

    def do(item):
        lock.run(item, {})
        return next_computes.wait(PATIENCE)

    assert values("ab", do) == [True, True]


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_more_graphs_run_at_once_than_the_lock_allows(at_once):
    networks = Networks(lambda item: time.sleep(0.01))
    lock = locked(networks, at_once)
    values("abcdef", lambda item: lock.run(item, {}), workers=3)
    assert networks.meeting.most == at_once


def test_a_graph_that_fails_leaves_the_lock_free():
    def fail(item):
        raise PolcError("broken")

    lock = locked(Networks(fail))
    for _ in range(2):
        with pytest.raises(PolcError, match="broken"):
            lock.run("a", {})
    lock.slots.stop()


def test_no_more_items_are_under_way_than_there_are_workers():
    items = Meeting()

    def do(item):
        with items:
            time.sleep(0.005)

    values(range(30), do, workers=3)
    assert items.most == 3


def test_any_exception_is_the_outcome_of_its_item_and_the_others_go_on():
    def do(item):
        return 1 / item

    outcomes = list(in_order([2, 0, 4], do, 2))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2]
    assert [outcome.value for outcome in outcomes] == [0.5, None, 0.25]
    with pytest.raises(ZeroDivisionError):
        outcomes[1].result()


def test_an_exit_is_raised_in_its_turn_and_stops_the_rest():
    begun = []

    def do(item):
        begun.append(item)
        if item == "b":
            raise SystemExit(item)
        return item

    outcomes = in_order("ab", do, 2)
    assert next(outcomes).result() == "a"
    with pytest.raises(SystemExit, match="b"):
        next(outcomes)
    assert begun == ["a", "b"] and not workers_alive()


def test_an_error_of_the_items_themselves_is_raised_and_ends_the_threads():
    def items():
        yield "a"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        values(items(), str)
    assert not workers_alive()


def test_each_item_sees_the_callers_context_of_when_it_was_taken():
    setting = ContextVar("setting", default=0)

    def items():
        for number in range(5):
            setting.set(number)
            yield number

    assert values(items(), lambda item: setting.get()) == list(range(5))


def test_every_thread_has_ended_after_the_last_outcome():
    assert len(values("abcd", str)) == 4 and not workers_alive()


def test_stopping_ends_the_item_that_computes_before_its_next_graph_and_begins_no_other():
    begun, computes, ran = [], threading.Event(), []

    def graph(item):
        ran.append(item)
        computes.set()
        time.sleep(0.2)

    lock = locked(Networks(graph))

    def do(item):
        begun.append(item)
        if item == "a":
            return
        for _ in range(10**6):
            lock.run(item, {})

    with closing(in_order("abcdef", do, 2, lock.slots.stop)) as outcomes:
        next(outcomes)
        assert computes.wait(PATIENCE)
    assert not workers_alive()
    assert sorted(begun) in (["a", "b"], ["a", "b", "c"]) and len(ran) < 10
    with pytest.raises(Interrupted):
        lock.run("a", {})


def test_stopping_waits_for_the_graph_that_runs():
    computes, done = threading.Event(), []

    def graph(item):
        computes.set()
        time.sleep(0.3)
        done.append(item)

    lock = locked(Networks(graph))
    thread = threading.Thread(target=lock.run, args=("a", {}))
    thread.start()
    assert computes.wait(PATIENCE)
    lock.slots.stop()
    assert done == ["a"]
    thread.join(PATIENCE)


def test_stopping_reaches_an_item_that_waits_for_its_turn():
    computes, second_asks = threading.Event(), threading.Event()

    def graph(item):
        computes.set()
        assert second_asks.wait(PATIENCE)
        time.sleep(0.1)

    lock, ended = locked(Networks(graph)), []

    def do(item):
        if item == "b":
            assert computes.wait(PATIENCE)
            second_asks.set()
        try:
            lock.run(item, {})
        except Interrupted as error:
            ended.append((item, error.kind))

    outcomes = in_order("ab", do, 2, lock.slots.stop)
    taker = threading.Thread(target=lambda: list(outcomes))
    taker.start()
    assert second_asks.wait(PATIENCE)
    lock.slots.stop()
    taker.join(PATIENCE)
    assert ended == [("b", "interrupted")]


def test_stopping_lets_a_file_that_is_being_written_become_whole(tmp_path):
    """The output is a pipe, which takes the rest only after the stop has begun."""
    os.mkfifo(tmp_path / "pipe")
    data, got, part_is_read = os.urandom(10**6), [], threading.Event()

    def do(item):
        if item == "b":
            Target(tmp_path / "pipe", force=True).write(data)

    def read():
        with (tmp_path / "pipe").open("rb", buffering=0) as stream:
            got.append(stream.read(1000))
            part_is_read.set()
            time.sleep(0.3)
            while part := stream.read(2**20):
                got.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with closing(in_order("abc", do, 2)) as outcomes:
        next(outcomes)
        assert part_is_read.wait(PATIENCE)
    reader.join(PATIENCE)
    assert b"".join(got) == data


def test_stopping_leaves_an_item_behind_that_waits_for_its_input(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    lock, errors = locked(Networks()), []

    def do(item):
        if item == "b":
            with reading():
                Source(tmp_path / "pipe", Path()).read()
            try:
                lock.run(item, {})
            except Interrupted as error:
                errors.append(error)
        return item

    with closing(in_order("ab", do, 2, lock.slots.stop)) as outcomes:
        assert next(outcomes).result() == "a"
        pipe = os.open(tmp_path / "pipe", os.O_WRONLY)
    (left,) = workers_alive()
    assert left.daemon
    os.close(pipe)
    left.join(PATIENCE)
    assert not left.is_alive() and len(errors) == 1
