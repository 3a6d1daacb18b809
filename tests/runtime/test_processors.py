"""How many threads polc works with: the affinity, the quota of control groups, `POLC_THREADS`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from polc_runtime import processors
from polc_runtime.backends import BackendOptions
from polc_runtime.bitstream import pool
from polc_runtime.bundle import Bundle
from polc_runtime.errors import UsageError
from polc_runtime.limits import MAX_STREAMS
from polc_runtime.processors import Processors, default_threads


def write(root: Path, files: dict[str, str]) -> Path:
    """Lays out files of a made-up system."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "garbage"}, None),
        (  # the tightest of a group and those above it
            {
                "proc/self/cgroup": "0::/pod/one\n",
                "sys/fs/cgroup/pod/cpu.max": "100000 50000\n",
                "sys/fs/cgroup/pod/one/cpu.max": "400000 100000\n",
            },
            2.0,
        ),
        (  # version 1
            {
                "proc/self/cgroup": "9:cpuset:/\n2:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (  # the path is the host's, the container sees its own group as the root
            {
                "proc/self/cgroup": "1:cpu:/docker/1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (  # version 1 without a bound, beside version 2
            {
                "proc/self/cgroup": "1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/unified/cpu.max": "300000 100000\n",
            },
            3.0,
        ),
    ],
    ids=["none", "unbounded", "v2", "garbage", "nested", "v1", "container", "hybrid"],
)
def test_the_quota_of_the_control_groups_is_found(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    assert processors.processors(write(tmp_path, files)).quota == quota


@pytest.mark.parametrize(
    ("affinity", "quota", "usable"), [(8, None, 8), (8, 1.5, 2), (8, 0.1, 1), (2, 6.0, 2), (1, None, 1)]
)
def test_the_smaller_bound_counts_and_a_quota_is_rounded_up(
    affinity: int, quota: float | None, usable: int
) -> None:
    assert Processors(64, affinity, quota).usable == usable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_the_affinity_bounds_the_threads() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from polc_runtime.processors import default_threads; print(default_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "POLC_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout == "1\n"


def test_the_variable_goes_before_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLC_THREADS", "7")
    assert default_threads() == 7 and pool.workers() == 7
    assert BackendOptions().threads == 7 and BackendOptions(threads=3).threads == 3
    monkeypatch.setenv("POLC_THREADS", "100")
    assert pool.workers() == MAX_STREAMS
    monkeypatch.setenv("POLC_THREADS", "")
    assert default_threads() == processors.processors().usable
    assert BackendOptions().threads is None


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_variable_that_is_no_number_of_threads_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("POLC_THREADS", text)
    for use in (default_threads, BackendOptions):
        with pytest.raises(UsageError, match=f"POLC_THREADS is '{text}', expected a positive whole number"):
            use()


@pytest.mark.parametrize(("variable", "threads"), [(None, None), ("1", 1)])
def test_sessions_of_onnxruntime_get_that_count(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int | None
) -> None:
    from polc_runtime.backends.onnxruntime import OnnxRuntimeBackend

    monkeypatch.delenv("POLC_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("POLC_THREADS", variable)
    bundle = Bundle.load("nano")
    backend = OnnxRuntimeBackend(bundle, BackendOptions())
    expected = threads or processors.processors().usable
    assert backend._session_options(bundle.manifest.graph("analysis")).intra_op_num_threads == expected
    assert backend.describe()["threads"] == expected


def test_the_environment_says_what_it_counted_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from polc_runtime.cli.bench import main

    monkeypatch.delenv("POLC_THREADS", raising=False)
    assert main(["env", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)["machine"]
    assert machine["threads"] == machine["usable_processors"] == processors.processors().usable
    assert machine["threads_because"].startswith(f"may run on {len(os.sched_getaffinity(0))} of ")
    monkeypatch.setenv("POLC_THREADS", "3")
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    assert "POLC_THREADS=3" in text and "usable_processors" in text
