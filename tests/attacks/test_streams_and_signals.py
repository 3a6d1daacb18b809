"""Streams that are closed or full, signals at bad moments: one line, and an exit code that is documented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from polc_runtime.bundle import find_bundle
from polc_runtime.cli.program import run_program
from polc_runtime.errors import PolcError

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("POLC_")}
COMMAND = [sys.executable, "-m", "polc_runtime"]
NANO = str(find_bundle("nano"))


def polc(*arguments, environment=None, before=None, **streams):
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**ENVIRONMENT, **(environment or {})},
        timeout=60, preexec_fn=before, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )  # fmt: skip
    assert b"Traceback" not in (done.stderr or b"") and b"ignored" not in (done.stderr or b""), done.stderr
    return done


def test_a_reader_that_went_away_is_an_error_of_one_line():
    read, write = os.pipe()
    os.close(read)
    done = polc("info", NANO, stdout=write)
    os.close(write)
    assert done.returncode == 2
    assert done.stderr == b"polc: error: standard output: was closed by its reader before all was written\n"


@pytest.mark.parametrize("arguments", [("info", "none"), ("info", NANO)], ids=["error", "fine"])
def test_messages_that_nobody_can_get_change_no_exit_code(arguments):
    with Path("/dev/full").open("wb") as full:
        assert polc(*arguments, stderr=full).returncode == (2 if "none" in arguments else 0)


def test_a_full_disk_behind_standard_output_is_an_error_of_one_line():
    with Path("/dev/full").open("wb") as full:
        done = polc("info", NANO, "--json", stdout=full)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"no space is left" in done.stderr


def test_a_closed_standard_input_says_so():
    done = polc("info", "-", before=lambda: os.close(0))
    assert done.returncode == 2
    assert done.stderr == b"polc: error: standard input: is closed\n"


def test_letters_that_the_terminal_lacks_are_printed_as_escapes(tmp_path):
    (tmp_path / "\u6f22\u00e9").symlink_to(NANO)
    done = polc("info", str(tmp_path / "\u6f22\u00e9"), environment={"PYTHONIOENCODING": "latin-1"})
    assert done.returncode == 0 and b"\\u6f22\xe9\n" in done.stdout


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "not enough memory"),
        (ImportError("no room\nfor a library"), "a part of the installation cannot be loaded: no room"),
    ],
)
def test_too_little_memory_is_an_error_of_one_line(error, said, capsys):
    """Where a command runs out of it: between two files, or as early as in an import."""

    @click.command()
    def command():
        raise error

    assert run_program(command, "test", ["--"]) == 2
    assert capsys.readouterr().err == f"test: error: {said}\n"


def test_a_small_file_takes_little_address_space(tmp_path):
    import resource

    (tmp_path / "a.polc").write_bytes(b"POLC")

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (900 << 20, 900 << 20))

    done = polc("info", str(tmp_path / "a.polc"), before=limited, environment={"OPENBLAS_NUM_THREADS": "1"})
    assert b"the file is truncated" in done.stderr


@pytest.mark.parametrize("threads", ["0", "1025", "99999999999"])
def test_a_number_of_threads_that_no_machine_has_is_refused(threads):
    done = polc("verify", "none", "--threads", threads)
    assert done.returncode == 2 and b"1<=x<=1024" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGHUP, 129, "its terminal was closed"),
    ],
)
@pytest.mark.parametrize("hidden_behind", [None, ImportError, PolcError, OSError])
def test_a_signal_is_told_even_where_it_shows_as_another_error(number, code, said, hidden_behind, capsys):
    """As where it comes while a module written in C is imported."""

    @click.command()
    def command():
        try:
            signal.raise_signal(number)
        except BaseException as error:
            if hidden_behind is None:
                raise
            raise hidden_behind("onnxruntime cannot be loaded") from error

    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)
    try:
        assert run_program(command, "test", ["--"]) == code
        assert capsys.readouterr().err.strip() == f"test: {said}"
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
