"""Several files in one run of `polc`: they overlap, and everything told of them is as if each ran alone."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from polc_runtime import Codec

COMMAND = [sys.executable, "-m", "polc_runtime"]
PATIENCE = 120

COMMANDS = {
    "compress": ["-o", "out"],
    "decompress": ["-o", "out"],
    "verify": [],
    "infer": ["--task", "convnext"],
}


def picture(seed, height=48, width=80):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def png(seed, **size):
    stream = io.BytesIO()
    picture(seed, **size).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def inputs(task_bundle):
    """What each command takes, as three files: images, or `.polc` files of them."""
    images = [png(seed) for seed in range(3)]
    with Codec.load(task_bundle) as codec:
        coded = [codec.compress(np.asarray(picture(seed)), 2.0 + seed) for seed in range(3)]
    return {command: images if command == "compress" else coded for command in COMMANDS}


@pytest.fixture
def started(task_bundle, tmp_path):
    """Starts `polc` in `tmp_path` on the bundle with tasks."""

    def start(*arguments):
        return subprocess.Popen(
            [*COMMAND, *arguments, "--bundle", str(task_bundle)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    return start


@pytest.fixture
def report(started):
    """Runs `polc --json`; gives the exit code, the results and the lines on standard error."""

    def run(*arguments):
        with started(*arguments, "--json") as child:
            out, err = child.communicate(timeout=PATIENCE)
        return child.returncode, json.loads(out)["results"], err.decode().splitlines()

    return run


def pipes(folder, *names):
    for name in names:
        os.mkfifo(folder / name)


def is_read(pipe):
    """Whether a process has opened a pipe to read it."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@contextmanager
def opened(pipe, child):
    """A pipe to write to, once `child` has opened it to read it."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            break
        except OSError:
            assert child.poll() is None and time.monotonic() < until, f"{pipe.name} is not read"
            time.sleep(0.002)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as stream:
        yield stream


def until_exists(path, child):
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert child.poll() is None and time.monotonic() < until, f"{path.name} is not written"
        time.sleep(0.002)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_file_is_read_before_the_first_is_there_but_told_after_it(
    started, tmp_path, inputs, command
):
    pipes(tmp_path, "a", "b", "c")
    child = started(command, "a", "b", "c", *COMMANDS[command], "--json")
    with child, opened(tmp_path / "a", child) as a, opened(tmp_path / "b", child) as b:
        assert not is_read(tmp_path / "c"), "more than two files are held"
        for stream, data in zip((b, a), inputs[command][1::-1], strict=True):
            stream.write(data)
            stream.close()
        with opened(tmp_path / "c", child) as c:
            c.write(inputs[command][2])
        results = json.loads(child.communicate(timeout=PATIENCE)[0])["results"]
    assert child.returncode == 0
    assert [(result["input"], result["ok"]) for result in results] == [("a", True), ("b", True), ("c", True)]


@pytest.mark.parametrize("command", ["verify", "info"])
def test_what_is_said_of_a_file_is_printed_before_the_next_is_there(started, tmp_path, inputs, command):
    """Lines of good files on standard output, of bad ones on standard error."""
    pipes(tmp_path, "c", "d")
    (tmp_path / "a.polc").write_bytes(inputs["verify"][0])
    bundle = [] if command == "verify" else ["--"]
    child = started(command, "a.polc", "none.polc", "c", "d", *bundle)
    with child, opened(tmp_path / "c", child) as c, opened(tmp_path / "d", child) as d:
        assert child.stdout.readline().startswith(b"a.polc")
        assert child.stderr.readline() == b"polc: error: none.polc: there is no such file or folder\n"
        for stream in (c, d):
            stream.write(inputs["verify"][0])
            stream.close()
        out = child.stdout.read()
    assert child.returncode == 2 and b"\nd" in b"\n" + out


def test_the_document_grows_with_every_file_and_is_whole_after_an_interrupt(started, tmp_path, inputs):
    pipes(tmp_path, "c", "d")
    (tmp_path / "a.polc").write_bytes(inputs["verify"][0])
    child = started("verify", "a.polc", "none.polc", "c", "d", "--json")
    with child, opened(tmp_path / "c", child), opened(tmp_path / "d", child):
        begun = b""
        while begun.count(b'"seconds"') < 2:
            begun += child.stdout.readline()
        child.send_signal(signal.SIGINT)
        document = json.loads(begun + child.stdout.read())
    assert child.returncode == 130 and document["failed"] == 1
    assert [(result["input"], result["ok"]) for result in document["results"]] == [
        ("a.polc", True), ("none.polc", False),
    ]  # fmt: skip


def test_a_file_is_written_while_the_one_before_it_is_not_read_yet(started, tmp_path, inputs):
    pipes(tmp_path, "a")
    (tmp_path / "b.png").write_bytes(inputs["compress"][1])
    child = started("compress", "a", "b.png", "-o", "out", "-v")
    with child, opened(tmp_path / "a", child) as a:
        until_exists(tmp_path / "out/b.polc", child)
        a.write(inputs["compress"][0])
        a.close()
        lines = child.communicate(timeout=PATIENCE)[1].decode().splitlines()
    assert child.returncode == 0
    assert [line.split(" -> ")[0] for line in lines[1:]] == ["polc: a", "polc: b.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_results_and_files_are_those_of_runs_of_one_file(report, tmp_path, inputs, command):
    files = [f"{number}.in" for number in range(3)]
    for file, data in zip(files, inputs[command], strict=True):
        (tmp_path / file).write_bytes(data)
    several = report(command, *files, *COMMANDS[command])
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*")}
    force = ["--force"] if "-o" in COMMANDS[command] else []
    apart = [report(command, file, *COMMANDS[command], *force) for file in files]
    assert several[0] == 0 and several[2] == []
    for result, (_, (alone,), _) in zip(several[1], apart, strict=True):
        assert result.pop("seconds") > 0 and alone.pop("seconds") > 0
        assert result == alone
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*")}
    assert len(written) == (3 if force else 0)


def with_crc(data):
    return bytes(data[:-4]) + struct.pack("<I", zlib.crc32(bytes(data[:-4])))


def test_an_error_of_each_stage_belongs_to_its_file_and_stops_no_other(report, tmp_path, inputs):
    good, other, third = inputs["decompress"]
    middle = len(good) // 2
    wrong_symbols = with_crc(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    content = {"a": good, "b": good[:-1], "c": other, "e": wrong_symbols, "f": third, "g": good, "h": other}
    for name, data in content.items():
        (tmp_path / f"{name}.polc").write_bytes(data)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/f.png").symlink_to(tmp_path / "nowhere/f.png")  # found out only on writing
    (tmp_path / "out/g.png").write_bytes(b"old")
    files = [f"{name}.polc" for name in "abcdefgh"]
    code, results, lines = report("decompress", *files, "-o", "out")
    assert code == 2 and [result["input"] for result in results] == files
    assert [result["ok"] for result in results] == [letter in "ach" for letter in "abcdefgh"]
    said = {result["input"][0]: result["error"] for result in results if not result["ok"]}
    assert "checksum" in said["b"] or "damaged" in said["b"]
    assert "decodes to other symbols" in said["e"] or "stream" in said["e"]
    assert said["d"] == "d.polc: there is no such file or folder"
    assert said["f"].startswith("out/f.png: ") and "exists already" in said["g"]
    assert lines == [f"polc: error: {said[letter]}" for letter in "bdefg"]
    assert names(tmp_path / "out") == ["a.png", "c.png", "f.png", "g.png", "h.png"]


def test_a_warning_belongs_to_the_file_that_gave_it(report, tmp_path, inputs):
    good = inputs["verify"][0]
    warned = with_crc(good[:13] + bytes(4) + good[17:])
    pattern = [False, True, True, False, True, False, False, True]
    files = [f"{number}.polc" for number in range(len(pattern))]
    for file, warns in zip(files, pattern, strict=True):
        (tmp_path / file).write_bytes(warned if warns else good)
    code, results, lines = report("verify", *files)
    assert code == 0 and [len(result["warnings"]) for result in results] == [int(warns) for warns in pattern]
    assert [line.split(": ")[2] for line in lines] == [
        file for file, warns in zip(files, pattern, strict=True) if warns
    ]


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.1, 0.3])
def test_an_interrupt_exits_with_130_and_leaves_only_whole_files(started, tmp_path, task_bundle, delay):
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / f"in/{number:02}.png").write_bytes(png(number, height=192, width=320))
    with started("compress", "in", "-o", "out") as child:
        until_exists(tmp_path / "out/00.polc", child)
        time.sleep(delay)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err.strip()) == (130, b"", b"polc: interrupted")
    written = names(tmp_path / "out")
    assert 0 < len(written) < 40
    with Codec.load(task_bundle) as codec:
        for name in written:
            codec.verify((tmp_path / "out" / name).read_bytes())


def test_an_interrupt_does_not_wait_for_an_input_that_never_comes(started, tmp_path, inputs):
    pipes(tmp_path, "a")
    (tmp_path / "b.png").write_bytes(inputs["compress"][0])
    (tmp_path / "c.png").write_bytes(inputs["compress"][1])
    child = started("compress", "a", "b.png", "c.png", "-o", "out")
    with child, opened(tmp_path / "a", child):
        until_exists(tmp_path / "out/c.polc", child)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err.strip()) == (130, b"", b"polc: interrupted")
    assert names(tmp_path / "out") == ["b.polc", "c.polc"]


def test_a_reader_that_goes_away_ends_the_run(started, tmp_path, inputs):
    files = [f"{number}.polc" for number in range(6)]
    for file in files:
        (tmp_path / file).write_bytes(inputs["verify"][0])
    child = started("verify", *files)
    child.stdout.close()
    with child:
        assert child.stderr.read().endswith(
            b"standard output: was closed by its reader before all was written\n"
        )
    assert child.returncode == 2
