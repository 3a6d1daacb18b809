"""Runs over folders with bad files, on full and read-only disks, and killed at any moment: real processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec
from polc_runtime.bundle import find_bundle
from polc_runtime.files.temporary import MAX_AGE, temporary_file, temporary_folder

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("POLC_")}
COMMAND = [sys.executable, "-m", "polc_runtime"]


@pytest.fixture(scope="module")
def codec():
    with Codec.load("nano", threads=1) as codec:
        yield codec


def picture(number, side=32):
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


@pytest.fixture
def polc(tmp_path):
    """Runs `polc` in `tmp_path`; no run may end in a traceback."""

    def run(*arguments, command=COMMAND, limit=None):
        def limited():
            if limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=120, preexec_fn=limited,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def errors(done):
    return [line for line in done.stderr.splitlines() if ": error: " in line]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_compress_goes_on_past_bad_images_and_reports_each_in_its_turn(polc, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in (1, 3, 5):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    (folder / "0-empty.png").write_bytes(b"")
    (folder / "2-text.png").write_bytes(b"no image")
    (folder / "4-cut.png").write_bytes((folder / "1.png").read_bytes()[:-500])
    (folder / "6-missing.png").symlink_to("nowhere")
    done = polc("compress", "in", "-o", "out", "-v")
    assert done.returncode == 2 and names(tmp_path / "out") == ["1.polc", "3.polc", "5.polc"]
    lines = errors(done)
    assert [Path(line.split(": ")[2]).name for line in lines] == [
        "0-empty.png", "2-text.png", "4-cut.png", "6-missing.png",
    ]  # fmt: skip
    order = [Path(line.split(": ")[-2 if ": error: " in line else 1].split(" -> ")[0]).name[0]
             for line in done.stderr.splitlines() if "in/" in line]  # fmt: skip
    assert order == list("0123456")


@pytest.fixture
def coded(codec, tmp_path):
    """A folder of good files between bad ones."""
    folder = tmp_path / "coded"
    folder.mkdir()
    for number in (1, 3):
        (folder / f"{number}.polc").write_bytes(codec.compress(picture(number)))
    (folder / "0.polc").write_bytes(b"")
    (folder / "2.polc").write_bytes((folder / "1.polc").read_bytes()[:-9])
    (folder / "4.polc").symlink_to("nowhere")
    return folder


BAD = ["coded/0.polc", "coded/2.polc", "coded/4.polc"]


@pytest.mark.parametrize(
    "command",
    [
        ("decompress", "coded", "-o", "out"),
        ("verify", "coded"),
        ("infer", "coded", "--task", "cifar10"),
        ("info", "coded/0.polc", "coded/1.polc", "coded/2.polc", "coded/3.polc", "coded/4.polc"),
    ],
    ids=lambda command: command[0],
)
def test_other_commands_go_on_past_bad_files_and_list_them(polc, coded, tmp_path, command):
    done = polc(*command, "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 2 and report["failed"] == 3
    assert [each["input"] for each in report["results"] if not each["ok"]] == BAD
    assert [line.split(": ")[2] for line in errors(done)] == BAD
    if command[0] == "decompress":
        assert names(tmp_path / "out") == ["1.png", "3.png"]


def test_measuring_goes_on_past_bad_pictures_and_lists_them_at_the_end(polc, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.png").write_bytes(b"no image")
    Image.fromarray(picture(1, 192)).save(tmp_path / "in/1.png")
    (tmp_path / "in/2.png").write_bytes((tmp_path / "in/1.png").read_bytes()[:-500])
    command = [sys.executable, "-c", "import sys; from polc_runtime.cli.bench import main; sys.exit(main())"]
    done = polc("agreement", "in", "-o", "out.json", command=command)
    assert done.returncode == 2
    assert [line.split(": ")[2] for line in errors(done)] == ["in/0.png", "in/2.png"]


def test_a_file_that_does_not_fit_on_the_disk_is_one_line_and_the_others_are_written(polc, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for number, side in enumerate((16, 200, 16)):
        Image.fromarray(picture(number, side)).save(tmp_path / f"in/{number}.png")
    (tmp_path / "out/1.polc").write_bytes(b"the old one")
    done = polc("compress", "in", "-o", "out", "--quality", "8", "--force", limit=10_000)
    assert done.returncode == 2 and len(errors(done)) == 1
    assert "out/1.polc: the file system does not take files this large" in errors(done)[0]
    assert names(tmp_path / "out") == ["0.polc", "1.polc", "2.polc"]
    assert (tmp_path / "out/1.polc").read_bytes() == b"the old one"


@contextlib.contextmanager
def mounted(folder, options):
    """A small file system in memory at a folder."""
    if sys.platform != "linux" or os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("options", ["size=24k", "nr_inodes=3"])
def test_a_full_disk_keeps_what_is_there_and_leaves_nothing_half_written(polc, codec, tmp_path, options):
    (tmp_path / "in").mkdir()
    (tmp_path / "disk").mkdir()
    for number in range(4):
        Image.fromarray(picture(number, 150)).save(tmp_path / f"in/{number}.png")
    with mounted(tmp_path / "disk", options):
        (tmp_path / "disk/0.polc").write_bytes(b"the old one")
        done = polc("compress", "in", "-o", "disk", "--quality", "8", "--force")
        assert done.returncode == 2
        assert all("no space is left on the disk; free some and run again" in line for line in errors(done))
        left = names(tmp_path / "disk")
        whole = [name for name in left if (tmp_path / "disk" / name).read_bytes() != b"the old one"]
        assert "0.polc" in left and all(name.endswith(".polc") for name in left)
        for name in whole:
            codec.verify((tmp_path / "disk" / name).read_bytes())
        assert len(whole) + len(errors(done)) == 4 and len(errors(done)) > 0


def test_a_read_only_disk_says_so_for_each_file(polc, coded, tmp_path):
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "ro"):
        done = polc("decompress", "coded/1.polc", "coded/3.polc", "-o", "disk")
    assert done.returncode == 2
    assert [line.partition("error: ")[2] for line in errors(done)] == [
        f"disk/{number}.png: the file system is read-only; choose another place" for number in (1, 3)
    ]


@pytest.fixture
def inputs(tmp_path):
    """Pictures in `in`, and files that `--force` replaces in `out`."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for number in range(40):
        Image.fromarray(picture(number)).save(tmp_path / f"in/{number:02}.png")
        (tmp_path / f"out/{number:02}.polc").write_bytes(b"the old one")
    return tmp_path


def heed_interrupts():
    """Undoes what a shell does to what it runs in the background: children of it would not hear Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def killed(folder, number, after):
    """A `polc compress --force` that got a signal some time after its first file; its exit code."""
    with subprocess.Popen(
        [*COMMAND, "compress", "in", "-o", "out", "--force", "--threads", "1", "--quality", "1"],
        cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
    ) as child:  # fmt: skip
        until = time.monotonic() + 60
        while (folder / "out/00.polc").read_bytes() == b"the old one":
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.001)
        time.sleep(after)
        child.send_signal(number)
        assert b"Traceback" not in child.stderr.read()
    return child.returncode


def check_whole(folder, codec):
    """Every file is the old one or a new one, whole."""
    for path in sorted((folder / "out").glob("*.polc")):
        data = path.read_bytes()
        if data != b"the old one":
            codec.verify(data)
    assert len(list((folder / "out").glob("*.polc"))) == 40


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_run_that_is_ended_at_any_moment_loses_nothing(inputs, codec, polc, number, code):
    moments = random.Random(int(number))
    for _ in range(3):
        assert killed(inputs, number, moments.uniform(0, 0.4)) == code
        check_whole(inputs, codec)
        if number != signal.SIGKILL:
            assert all(name.endswith(".polc") for name in names(inputs / "out"))
        for path in (inputs / "out").glob("*.polc"):
            path.write_bytes(b"the old one")
    for path in (inputs / "out").glob(".*"):
        grow_old(path)
    assert polc("compress", "in/00.png", "-o", "out", "--force").returncode == 0
    assert all(name.endswith(".polc") for name in names(inputs / "out")), "a later run clears the rest away"


def grow_old(path):
    """Makes a file or folder look like one that was left behind a day ago."""
    before = time.time() - MAX_AGE - 1
    os.utime(path, (before, before), follow_symlinks=False)


WRITE = """
import sys
from pathlib import Path
from polc_runtime.files.outputs import write_file
write_file(Path(sys.argv[1]) / "new", b"data")
"""


def test_what_a_killed_run_left_a_day_ago_is_cleared_and_nothing_else(tmp_path):
    for name in (".polc-0123456789abcdef.tmp", ".polc-00000000000000ff.tmp", ".polc-0123.tmp",
                 "polc-0123456789abcdef.tmp", ".polc-0123456789ABCDEF.tmp"):  # fmt: skip
        (tmp_path / name).touch()
    (tmp_path / ".polc-1111111111111111.tmp").mkdir()
    (tmp_path / ".polc-1111111111111111.tmp/inside").touch()
    kept = set(names(tmp_path)) - {".polc-0123456789abcdef.tmp", ".polc-1111111111111111.tmp"}
    for path in tmp_path.iterdir():
        if path.name != ".polc-00000000000000ff.tmp":  # which another run still writes
            grow_old(path)
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path)], check=True)
    assert set(names(tmp_path)) == kept | {"new"}


def test_a_link_that_is_called_like_a_leftover_leads_nowhere(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    link = tmp_path / "folder/.polc-0123456789abcdef.tmp"
    link.symlink_to(tmp_path / "precious")
    grow_old(link)
    subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / "folder")], check=True)
    assert (tmp_path / "precious/file").exists()


def test_temporary_files_and_folders_are_gone_after_an_error(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        temporary_file(tmp_path, b"data"),
        temporary_folder(tmp_path) as folder,
    ):
        (folder / "inside").mkdir()
        raise KeyboardInterrupt
    assert not names(tmp_path)


SWAP = """
import sys
from pathlib import Path
from polc_export.bundle_folder import atomic_folder
from polc_runtime import Bundle
source = Bundle.load("nano")
from polc_export.bundle_folder import copy_bundle
print("ready", flush=True)
while True:
    with atomic_folder(Path(sys.argv[1]), force=True) as folder:
        copy_bundle(folder, source)
"""


def test_a_bundle_that_is_replaced_is_there_whenever_the_run_is_killed(tmp_path):
    moments = random.Random(1)
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", SWAP, str(tmp_path / "a.bundle")], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout.readline() == b"ready\n"
            until = time.monotonic() + 60
            while not (tmp_path / "a.bundle").is_dir():
                assert time.monotonic() < until
            time.sleep(moments.uniform(0, 0.3))
            child.kill()
        bundle = find_bundle(tmp_path / "a.bundle")
        with Codec.load(bundle) as codec:
            for graph in codec.bundle.manifest.graphs:
                codec.bundle.graph(graph.name, graph.precision)
        assert set(names(tmp_path)) - {"a.bundle"} == {
            name for name in names(tmp_path) if name.startswith(".polc-") and name.endswith(".tmp")
        }
        for path in tmp_path.glob(".*"):
            grow_old(path)
    assert len(names(tmp_path)) <= 3, "a later run clears what the others left"
