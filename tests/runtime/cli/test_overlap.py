"""Jobs that overlap: how many at once, whose networks run side by side, in which order, and how they stop."""

import json
import os
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from polc_runtime.cli.console import prepare
from polc_runtime.cli.options import Reporting
from polc_runtime.cli.overlap import AT_ONCE, in_order
from polc_runtime.cli.runner import run
from polc_runtime.errors import CodecMismatchWarning, PolcError
from polc_runtime.files.inputs import Source
from polc_runtime.files.outputs import Job, Target

PATIENCE = 30


def jobs_named(*names):
    return [Job(Source(Path(name), Path(name))) for name in names]


def name(job):
    return job.source.name


def threads_of_jobs():
    return [thread for thread in threading.enumerate() if thread.name.startswith("polc-job")]


class Meeting:
    """Counts who is inside at once."""

    def __init__(self):
        self.lock, self.inside, self.most = threading.Lock(), 0, 0

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *error):
        with self.lock:
            self.inside -= 1


def test_results_keep_the_order_of_the_jobs():
    second_is_done = threading.Event()

    def do(job, turn):
        if name(job) == "a":
            assert second_is_done.wait(PATIENCE)
        else:
            second_is_done.set()
        return name(job)

    assert list(in_order(jobs_named("a", "b"), do)) == ["a", "b"]


def test_the_next_job_reads_while_the_networks_of_the_one_before_run():
    next_has_read = threading.Event()

    def do(job, turn):
        if name(job) == "b":
            next_has_read.set()
        with turn.networks():
            return next_has_read.wait(PATIENCE)

    assert list(in_order(jobs_named("a", "b"), do)) == [True, True]


def test_the_job_before_writes_while_the_networks_of_the_next_run():
    next_computes = threading.Event()

    def do(job, turn):
        with turn.networks():
            if name(job) == "b":
                next_computes.set()
        return next_computes.wait(PATIENCE)

    assert list(in_order(jobs_named("a", "b"), do)) == [True, True]


def test_networks_run_for_one_job_at_a_time():
    networks = Meeting()

    def do(job, turn):
        with turn.networks(), networks:
            time.sleep(0.01)

    list(in_order(jobs_named(*"abcdef"), do))
    assert networks.most == 1


def test_only_so_many_jobs_are_under_way_at_once():
    jobs = Meeting()

    def do(job, turn):
        with jobs:
            time.sleep(0.005)
            with turn.networks():
                time.sleep(0.005)

    list(in_order(jobs_named(*map(str, range(30))), do))
    assert jobs.most == AT_ONCE


def test_a_single_job_is_done_on_the_calling_thread():
    def do(job, turn):
        with turn.networks():
            return threading.current_thread(), threading.active_count()

    assert list(in_order(jobs_named("a"), do)) == [(threading.current_thread(), threading.active_count())]


def test_the_clock_stands_still_while_another_jobs_networks_are_waited_for():
    next_arrives = threading.Event()

    def do(job, turn):
        if name(job) == "b":
            next_arrives.set()
        clock, real = turn.clock(), time.perf_counter()
        with turn.networks():
            next_arrives.wait(PATIENCE)
            time.sleep(0.3 if name(job) == "a" else 0)
        return turn.clock() - clock, time.perf_counter() - real

    (first, first_real), (second, second_real) = in_order(jobs_named("a", "b"), do)
    assert first == pytest.approx(first_real, abs=0.1) and first > 0.25
    assert second < second_real - 0.2


def test_an_error_that_is_no_result_is_raised_in_its_turn_and_stops_the_rest():
    begun = []

    def do(job, turn):
        begun.append(name(job))
        if name(job) == "b":
            raise ZeroDivisionError("b")
        return name(job)

    results = in_order(jobs_named(*map(str, "ab")), do)
    assert next(results) == "a"
    with pytest.raises(ZeroDivisionError, match="b"):
        next(results)
    assert begun == ["a", "b"] and not threads_of_jobs()


def test_every_thread_has_ended_when_the_last_result_is_there():
    def do(job, turn):
        with turn.networks():
            return threading.current_thread().name

    assert len(list(in_order(jobs_named(*"abcd"), do))) == 4
    assert not threads_of_jobs()


def test_stopping_ends_the_job_that_computes_and_begins_no_other():
    begun, computes = [], threading.Event()

    def do(job, turn):
        begun.append(name(job))
        if name(job) == "a":
            return
        with turn.networks():
            computes.set()
            while True:
                try:
                    time.sleep(0.001)
                except Exception as error:
                    raise PolcError("taken for a failure") from error

    with closing(in_order(jobs_named(*"abcdef"), do)) as results:
        next(results)
        assert computes.wait(PATIENCE)
    assert not [thread for thread in threads_of_jobs() if thread.is_alive()]
    assert sorted(begun) in (["a", "b"], ["a", "b", "c"])


def test_stopping_lets_a_file_that_is_being_written_become_whole(tmp_path):
    """The output is a pipe, which takes the rest only after the stop has begun."""
    os.mkfifo(tmp_path / "pipe")
    data, got, part_is_read = os.urandom(10**6), [], threading.Event()

    def do(job, turn):
        with turn.networks():
            pass
        if name(job) == "b":
            turn.write(Target(tmp_path / "pipe"), data, True)

    def read():
        with (tmp_path / "pipe").open("rb", buffering=0) as stream:
            got.append(stream.read(1000))
            part_is_read.set()
            time.sleep(0.3)
            while part := stream.read(2**20):
                got.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with closing(in_order(jobs_named("a", "b", "c"), do)) as results:
        next(results)
        assert part_is_read.wait(PATIENCE)
    reader.join(PATIENCE)
    assert b"".join(got) == data


def test_stopping_leaves_a_job_behind_that_waits_for_its_input(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    after = []

    def do(job, turn):
        if name(job) == "b":
            Source(tmp_path / "pipe", Path()).read()
            with turn.networks():
                after.append("networks")
        return name(job)

    with closing(in_order(jobs_named("a", "b"), do)) as results:
        assert next(results) == "a"
        pipe = os.open(tmp_path / "pipe", os.O_WRONLY)
    (left,) = threads_of_jobs()
    assert left.daemon
    os.close(pipe)
    left.join(PATIENCE)
    assert not left.is_alive() and not after


def test_warnings_of_jobs_that_run_at_once_are_told_apart(capsys):
    prepare("test")
    both = threading.Barrier(2)

    def work(job, turn):
        for number in range(50):
            both.wait(PATIENCE)
            warnings.warn(f"{name(job)} {number}", CodecMismatchWarning, stacklevel=1)
        if name(job) == "b":
            raise PolcError("failed")
        return {}

    assert run("test", jobs_named("a", "b"), work, Reporting(as_json=True, verbose=False)) == 2
    printed = capsys.readouterr()
    first, second = json.loads(printed.out)["results"]
    assert (first["ok"], second["ok"], second["error"]) == (True, False, "b: failed")
    expected = {letter: [f"{letter} {number}" for number in range(50)] for letter in "ab"}
    assert {"a": first["warnings"], "b": second["warnings"]} == expected
    assert printed.err.splitlines() == [
        *(f"test: warning: {letter}: {text}" for letter in "ab" for text in expected[letter]),
        "test: error: b: failed",
    ]


def test_how_warnings_are_shown_is_as_before_when_the_jobs_are_done(capsys):
    shown, filters = warnings.showwarning, list(warnings.filters)
    run("test", jobs_named("a", "b"), lambda job, turn: {}, Reporting(as_json=False, verbose=False))
    assert (warnings.showwarning, list(warnings.filters)) == (shown, filters)
