"""What fuzzing's logs are read as: a failure anywhere in one must show in the table."""

from __future__ import annotations

from argparse import Namespace

import pytest
import run_all

CHUNK = """functions that guide: 120
#2\tINITED cov: {cov} ft: 300 corp: 30/9kb exec/s: 0 rss: 70Mb
#900\tNEW    cov: {cov} ft: 310 corp: {kept}/9kb lim: 4 exec/s: 1000 rss: 71Mb L: 4/9 MS: 1 EraseBytes-
executions: {runs}
seconds: {seconds}
peak: {peak}

exit code 0
"""
CRASH = """#77\tNEW    cov: 200 ft: 310 corp: 31/9kb lim: 4 exec/s: 1000 rss: 71Mb
==7== ERROR: libFuzzer: fuzz target exited

exit code 77
"""
NATIVE = """
exit code 0
#10000000\tDONE   cov: 344 ft: 900 corp: 181/20Kb lim: 4096 exec/s: 40000 rss: 479Mb
Done 10000000 runs in 250 second(s)
stat::number_of_executed_units: 10000000
stat::peak_rss_mb:              479

exit code 0
"""


def chunk(cov=100, kept=40, runs=1000, seconds=200, peak=300):
    return CHUNK.format(cov=cov, kept=kept, runs=runs, seconds=seconds, peak=peak)


def written(folder, text):
    (folder / "container.log").write_text(text)
    return folder / "container.log"


def test_processes_of_a_target_are_taken_together(tmp_path):
    log = written(tmp_path, chunk(cov=110, kept=44) + chunk(cov=108, kept=42, runs=500, seconds=70, peak=90))
    assert run_all.row(log) == ("| `container` | 1500 | 270 | 110 | 42 | 300 MB | no finding |", False)


def test_the_native_target(tmp_path):
    log = written(tmp_path, NATIVE)
    assert run_all.row(log) == ("| `container` | 10000000 | 250 | 344 | 181 | 479 MB | no finding |", False)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CRASH, id="at-once"),
        pytest.param(chunk() + CRASH, id="in-the-last-process"),
        pytest.param(CRASH + chunk(), id="before-fuzzing-went-on"),
        pytest.param(chunk() + "\nexit code -9\n", id="killed"),
        pytest.param(chunk() + "INFO: no interesting inputs were found so far", id="unguided"),
        pytest.param("error: no such file\n\nexit code 1\n", id="not-built"),
    ],
)
def test_failures_count(tmp_path, text):
    line, failed = run_all.row(written(tmp_path, text))
    assert failed and "**failed**" in line


@pytest.mark.parametrize("text", ["", "functions that guide: 120\n", "\nexit code 0\n"])
def test_what_has_not_ended_is_no_result(tmp_path, text):
    line, failed = run_all.row(written(tmp_path, text))
    assert line.endswith("| not finished |") and not failed


def test_what_is_left_to_do(tmp_path):
    wanted = Namespace(seconds=600, runs=2000)
    assert run_all.remaining(wanted, tmp_path / "none.log") == (600, 2000)
    assert run_all.remaining(wanted, written(tmp_path, chunk(seconds=200, runs=500))) == (400, 1500)
    assert run_all.remaining(wanted, written(tmp_path, chunk(seconds=200, runs=2000))) is None
    assert run_all.remaining(wanted, written(tmp_path, chunk(seconds=601, runs=500))) is None
