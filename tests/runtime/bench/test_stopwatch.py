"""Times of stages: what spans count, and how they are summed up."""

import threading
import time
from contextvars import copy_context
from dataclasses import asdict

import numpy as np
import pytest

from polc_runtime.bench.speed.instruments import OTHER, Stopwatch, TimedBackend, lap
from polc_runtime.bench.speed.results import Timing
from polc_runtime.trace import listening, span


def test_inner_spans_do_not_count_in_the_outer():
    def work():
        with span("outer"):
            time.sleep(0.02)
            for _ in range(2):
                with span("inner"):
                    time.sleep(0.03)
            with span("inner"), span("innermost"):
                time.sleep(0.04)
        return "done"

    found = lap(work)
    assert found.result == "done" and list(found.stages) == ["outer", "inner", "innermost", OTHER]
    assert found.stages["outer"] >= 0.02 and found.stages["inner"] >= 0.06
    assert found.stages["innermost"] >= 0.04
    assert sum(found.stages.values()) == pytest.approx(found.total)
    assert found.total >= 0.12


def test_a_span_that_fails_is_counted_and_the_error_goes_on():
    watch = Stopwatch()
    with listening(watch), pytest.raises(ValueError, match="broken"), span("outer"), span("inner"):
        time.sleep(0.01)
        raise ValueError("broken")
    assert watch.seconds()["inner"] >= 0.01 and watch.seconds()["outer"] < watch.seconds()["inner"]


def test_spans_are_heard_in_the_listening_thread_alone():
    watch = Stopwatch()

    def elsewhere():
        with span("elsewhere"):
            pass

    with listening(watch):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with span("here"):
            pass
    with span("afterwards"):
        pass
    assert list(watch.seconds()) == ["here"]


class Doubler:
    """A backend of one graph that doubles its input."""

    name = "doubler"

    def run(self, graph, inputs):
        return {"out": 2 * inputs["in"]}

    def describe(self):
        return {"name": self.name}

    def close(self):
        self.closed = True


def test_timed_backend_runs_what_it_wraps_and_lists_its_calls():
    inner = Doubler()
    backend = TimedBackend(inner)
    found = lap(lambda: backend.run("double", {"in": np.ones((2, 3), np.float32)}))
    assert found.result["out"].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert list(found.stages) == ["double", OTHER]
    assert backend.calls == [("double", {"in": (2, 3)})]
    assert backend.name == "doubler" and backend.describe() == {"name": "doubler"}
    backend.close()
    assert inner.closed


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_a_timing_is_numpys(count):
    seconds = np.random.default_rng(count).gamma(2.0, 0.1, count)
    assert asdict(Timing.of(list(seconds))) == pytest.approx(
        {
            "min": seconds.min(),
            "median": np.median(seconds),
            "mean": seconds.mean(),
            "p90": np.percentile(seconds, 90),
            "p99": np.percentile(seconds, 99),
        }
    )


def test_threads_share_a_stopwatch():
    watch = Stopwatch()

    def work():
        for _ in range(3):
            with span("outer"), span("inner"):
                time.sleep(0.01)

    with listening(watch):
        threads = [threading.Thread(target=copy_context().run, args=(work,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seconds = watch.seconds()
    assert set(seconds) == {"outer", "inner"}
    assert seconds["inner"] >= 0.06 and seconds["outer"] < seconds["inner"]


def test_a_devices_seconds_are_kept_beside_the_stages():
    found = lap(lambda: None, lambda: {"analysis": 2.0})
    assert found.device == {"analysis": 2.0} and "analysis" not in found.stages
    assert lap(lambda: None).device == {}
