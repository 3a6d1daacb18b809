"""The loop of every command: what is printed of each job, and when; one JSON document; bounded memory."""

import json
import os
import threading
import time
import tracemalloc
import warnings
from pathlib import Path

import pytest

from polc_runtime.cli.console import prepare
from polc_runtime.cli.options import Reporting
from polc_runtime.cli.runner import run
from polc_runtime.codec.pipeline import NetworkLock, NetworkSlots
from polc_runtime.errors import CodecMismatchWarning, DriftError, PolcError, ResourceError, TruncatedError
from polc_runtime.files.inputs import Source
from polc_runtime.files.outputs import Job

PATIENCE = 30
QUIET, AS_JSON = Reporting(as_json=False, verbose=False), Reporting(as_json=True, verbose=False)


def jobs_named(*names):
    return [Job(Source(Path(name), Path(name))) for name in names]


def name(job):
    return job.source.name


@pytest.fixture
def printed(capsys):
    """Runs jobs by name; gives the exit code, the JSON document and the lines on standard error."""
    prepare("test")

    def run_them(names, work, **options):
        code = run("test", jobs_named(*names), work, AS_JSON, **options)
        out, err = capsys.readouterr()
        return code, json.loads(out), err.splitlines()

    return run_them


def test_a_single_job_is_done_on_the_calling_thread():
    def work(job):
        assert threading.current_thread() is threading.main_thread()
        return {}

    assert run("test", jobs_named("a"), work, QUIET) == 0


def test_the_document_holds_what_is_said_of_the_run_and_every_result_in_order(printed):
    code, document, err = printed("abc", lambda job: {"letter": name(job)}, about={"bundle": "x"})
    assert (code, document["command"], document["bundle"], document["failed"], err) == (0, "test", "x", 0, [])
    assert [result["letter"] for result in document["results"]] == ["a", "b", "c"]
    assert all(result["ok"] and result["input"] == result["letter"] for result in document["results"])


def test_a_failed_result_carries_the_kind_of_its_error(printed):
    errors = {
        "a": TruncatedError("cut"),
        "b": DriftError("other symbols"),
        "c": ResourceError("no disk"),
        "d": MemoryError(),
        "e": FileNotFoundError(2, "none", "e"),
        "f": OSError(28, "full", "f"),
        "g": PolcError("wrong"),
    }

    def work(job):
        raise errors[name(job)]

    code, document, err = printed(errors, work)
    assert code == 2 and document["failed"] == 7
    kinds = {result["input"]: result["kind"] for result in document["results"]}
    assert kinds == {
        "a": "truncated", "b": "drift", "c": "resources", "d": "resources", "e": "usage", "f": "resources",
        "g": "usage",
    }  # fmt: skip
    assert err == [f"test: error: {result['error']}" for result in document["results"]]
    assert err[3] == "test: error: d: not enough memory"


def test_an_error_that_nobody_expected_fails_its_job_alone(printed):
    def work(job):
        return {"quotient": 1 / (name(job) != "b")}

    code, document, err = printed("abc", work)
    assert code == 2 and [result["ok"] for result in document["results"]] == [True, False, True]
    assert document["results"][1]["kind"] == "internal"
    assert err == ["test: error: b: unexpected ZeroDivisionError: division by zero (-v shows where)"]


@pytest.mark.parametrize("names", ["b", "ab"])
def test_a_verbose_run_shows_where_an_unexpected_error_came_from(capsys, names):
    def work(job):
        return {"quotient": 1 / (name(job) != "b")}

    assert run("test", jobs_named(*names), work, Reporting(as_json=False, verbose=True)) == 2
    assert "test_runner.py" in capsys.readouterr().err


def test_messages_name_options_and_not_parameters(printed):
    def work(job):
        raise PolcError(f"{name(job)}: exists already; overwrite it with force=True")

    _, document, err = printed("ab", work)
    assert err[0] == "test: error: a: exists already; overwrite it with --force"
    assert document["results"][0]["error"] == "a: exists already; overwrite it with --force"


def test_seconds_are_without_the_wait_for_anothers_networks(printed):
    class Slow:
        name = "slow"

        def run(self, graph, inputs):
            assert both_ask.wait(PATIENCE)
            time.sleep(0.3 if graph == "a" else 0)

    both_ask, lock = threading.Event(), NetworkLock(Slow(), NetworkSlots())
    first_runs = threading.Event()

    def work(job):
        if name(job) == "b":
            assert first_runs.wait(PATIENCE)
            threading.Timer(0.05, both_ask.set).start()
        else:
            first_runs.set()
        started = time.perf_counter()
        lock.run(name(job), {})
        return {"real": time.perf_counter() - started}

    first, second = printed("ab", work)[1]["results"]
    assert first["seconds"] >= 0.3
    assert second["seconds"] < second["real"] - 0.2


def test_warnings_of_jobs_that_run_at_once_are_told_apart(printed):
    both = threading.Barrier(2)

    def work(job):
        for number in range(50):
            both.wait(PATIENCE)
            warnings.warn(f"{name(job)} {number}", CodecMismatchWarning, stacklevel=1)
        if name(job) == "b":
            raise PolcError("failed")
        return {}

    code, document, err = printed("ab", work)
    first, second = document["results"]
    assert code == 2
    assert (first["ok"], second["ok"], second["error"]) == (True, False, "b: failed")
    expected = {letter: [f"{letter} {number}" for number in range(50)] for letter in "ab"}
    assert {"a": first["warnings"], "b": second["warnings"]} == expected
    assert err == [
        *(f"test: warning: {letter}: {text}" for letter in "ab" for text in expected[letter]),
        "test: error: b: failed",
    ]


def test_how_warnings_are_shown_is_as_before_when_the_jobs_are_done():
    shown, filters = warnings.showwarning, list(warnings.filters)
    run("test", jobs_named("a", "b"), lambda job: {}, QUIET)
    assert (warnings.showwarning, list(warnings.filters)) == (shown, filters)


def large_result(job):
    return {"text": name(job) * 2500}


def refused(job):
    large_result(job)
    raise PolcError(name(job) * 2500)


def failed(job):
    image = bytes(10**6)
    raise ZeroDivisionError(len(image))


@pytest.mark.parametrize("work", [large_result, refused, failed])
def test_memory_does_not_grow_with_the_number_of_jobs(monkeypatch, work):
    """Each job has 10 kB or 1 MB, so that keeping them would take 20 MB or more."""
    jobs = jobs_named(*map(str, range(2000 if work is not failed else 200)))
    with Path(os.devnull).open("w") as sink:
        monkeypatch.setattr("sys.stdout", sink)
        monkeypatch.setattr("sys.stderr", sink)
        tracemalloc.start()
        try:
            assert run("test", jobs, work, AS_JSON) == (0 if work is large_result else 2)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 6 * 2**20
