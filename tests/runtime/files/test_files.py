"""Which inputs there are, what outputs are called, and that an output is whole or not there."""

import contextlib
import errno
import os
import re
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from polc_runtime.errors import (
    BitstreamLimitError,
    ImageLimitError,
    LimitError,
    PolcError,
    ResourceError,
    UsageError,
)
from polc_runtime.files import outputs as files
from polc_runtime.files.inputs import Source, expand, explain, read_plain_file
from polc_runtime.files.outputs import Target, make_folder, plan, write_file
from polc_runtime.limits import Limits

SUFFIXES = {".png", ".jpg"}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder with images, other files, hidden ones, and a sub-folder; the working folder is its parent."""
    images = ["b.png", "a.JPG", ".hidden.png", "sub/c.png", "sub/a.png", ".git/d.png"]
    for name in [*images, "notes.txt", "empty/readme"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(sources):
    return [source.path.as_posix() for source in sources]


def targets(jobs):
    return [job.target.path.as_posix() for job in jobs]


def leftovers(folder):
    return sorted(path.name for path in folder.rglob("*.tmp"))


def test_a_folder_gives_its_files_with_the_suffixes_in_order_and_no_hidden_ones(tree):
    assert paths(expand(["in"], SUFFIXES)) == ["in/a.JPG", "in/b.png"]


def test_a_recursive_folder_gives_those_of_its_sub_folders_too(tree):
    found = expand(["in/"], SUFFIXES, recursive=True)
    assert paths(found) == ["in/a.JPG", "in/b.png", "in/sub/a.png", "in/sub/c.png"]
    assert [source.place.as_posix() for source in found] == ["a.JPG", "b.png", "sub/a.png", "sub/c.png"]


def test_a_link_to_a_folder_above_does_not_loop(tree):
    (tree / "in/sub/up").symlink_to(tree / "in")
    assert len(expand(["in"], SUFFIXES, recursive=True)) == 4


def test_what_a_folder_holds_besides_files_is_passed_over(tree):
    """A pipe that nobody writes to would keep the reader waiting for ever."""
    os.mkfifo(tree / "in/pipe.png")
    (tree / "in/to-pipe.png").symlink_to("pipe.png")
    (tree / "in/to-folder.png").symlink_to("sub")
    (tree / "in/to-nothing.png").symlink_to("nowhere")
    assert paths(expand(["in"], SUFFIXES)) == ["in/a.JPG", "in/b.png", "in/to-nothing.png"]


def test_folders_nested_deeper_than_python_recurses_are_read_and_made(tree):
    depth = sys.getrecursionlimit() + 200
    deep = Path(*["d"] * depth)
    try:
        make_folder(deep)
        (deep / "x.png").touch()
        (found,) = expand(["d"], SUFFIXES, recursive=True)
        assert len(found.place.parts) == depth
    finally:
        subprocess.run(["rm", "-rf", "d"], check=True)  # Python's own way cannot


def test_an_empty_name_is_an_error_and_not_the_working_folder(tree):
    for arguments in ([""], ["in/b.png", ""]):
        with pytest.raises(UsageError, match="^an input has an empty name$"):
            expand(arguments, SUFFIXES)
    with pytest.raises(UsageError, match="^the output has an empty name$"):
        plan(expand(["in/b.png"], SUFFIXES), "", SUFFIXES, ".polc")


def test_a_named_file_is_taken_whatever_its_suffix_and_even_if_it_is_missing(tree):
    assert paths(expand(["in/notes.txt", "none.png"], SUFFIXES)) == ["in/notes.txt", "none.png"]


def test_a_folder_without_images_says_which_suffixes_were_looked_for(tree):
    with pytest.raises(
        UsageError, match=r"^in/empty: no file .* \.jpg \.png; pass recursive=True to search its sub-folders$"
    ):
        expand(["in/empty"], SUFFIXES)


def test_standard_input_can_be_named_once(tree):
    assert [source.path for source in expand(["-", "a.png"], SUFFIXES)] == [None, Path("a.png")]
    with pytest.raises(UsageError, match="more than once"):
        expand(["-", "-"], SUFFIXES)


def test_one_file_is_written_to_the_name_given(tree):
    assert targets(plan(expand(["in/b.png"], SUFFIXES), "x.polc", SUFFIXES, ".polc")) == ["x.polc"]


@pytest.mark.parametrize("output", ["in", "new/"])
def test_one_file_goes_into_a_folder_that_exists_or_is_meant(tree, output):
    jobs = plan(expand(["in/sub/c.png"], SUFFIXES), output, SUFFIXES, ".polc")
    assert targets(jobs) == [f"{output.rstrip('/')}/c.polc"]


def test_several_files_and_a_folder_go_into_a_folder_with_the_sub_folders_kept(tree):
    jobs = plan(expand(["in", "in/notes.txt"], SUFFIXES, recursive=True), "out", SUFFIXES, ".polc")
    assert targets(jobs) == [
        "out/a.polc", "out/b.polc", "out/sub/a.polc", "out/sub/c.polc", "out/notes.txt.polc",
    ]  # fmt: skip


def test_a_folder_with_one_file_still_goes_into_a_folder(tree):
    (tree / "in/a.JPG").unlink()
    assert targets(plan(expand(["in"], SUFFIXES), "out", SUFFIXES, ".polc")) == ["out/b.polc"]


@pytest.mark.parametrize(
    "name, written",
    [("a.png", "a.polc"), ("a.PNG", "a.polc"), ("v1.2", "v1.2.polc"), ("a.tar.png", "a.tar.polc"),
     (".png", ".png.polc"), ("a", "a.polc")],
)  # fmt: skip
def test_only_a_known_suffix_is_replaced(name, written):
    assert targets(plan([Source(Path(name), Path(name))], "out/", SUFFIXES, ".polc")) == [f"out/{written}"]


def test_two_inputs_for_one_output_are_an_error_that_names_all_three(tree):
    (tree / "in/b.jpg").touch()
    with pytest.raises(UsageError, match=r"^in/b\.jpg and in/b\.png would both be written to out/b\.polc;"):
        plan(expand(["in"], SUFFIXES), "out", SUFFIXES, ".polc")


def test_the_same_input_twice_is_an_error(tree):
    with pytest.raises(UsageError, match="would both be written"):
        plan(expand(["in/b.png", "./in/../in/b.png"], SUFFIXES), "out", SUFFIXES, ".polc")


@pytest.mark.parametrize("output", ["in/b.png", "./in/../in/b.png", "link.png"])
def test_an_output_that_is_an_input_is_an_error(tree, output):
    (tree / "link.png").symlink_to(tree / "in/b.png")
    with pytest.raises(UsageError, match="is an input, and would be overwritten"):
        plan(expand(["in/b.png"], SUFFIXES), output, SUFFIXES, ".polc")


def test_an_output_that_is_another_input_is_an_error(tree):
    with pytest.raises(UsageError, match=r"^in/b\.png: is an input"):
        plan(expand(["in/b.polc", "in/b.png"], SUFFIXES), "in", {".polc"}, ".png")


def test_standard_output_takes_one_input(tree):
    assert plan(expand(["in/b.png"], SUFFIXES), "-", SUFFIXES, ".polc")[0].target == Target(None)
    for arguments in (["in"], ["in/b.png", "in/a.JPG"]):
        with pytest.raises(UsageError, match="^standard output ..-.. takes one input; there are 2"):
            plan(expand(arguments, SUFFIXES), "-", SUFFIXES, ".polc")


def test_standard_input_has_no_name_for_a_folder(tree):
    with pytest.raises(UsageError, match="standard input has no name to use in the folder in"):
        plan(expand(["-"], SUFFIXES), "in", SUFFIXES, ".polc")


def test_a_source_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert Source(path, Path("a")).read(Limits(max_image_bytes=5)) == b"12345"
    with pytest.raises(
        BitstreamLimitError, match="is larger than the limit of 4 bytes .raise it by .POLC_MAX_BYTES"
    ):
        Source(path, Path("a")).read(Limits(max_bytes=4), "max_bytes")
    with pytest.raises(ImageLimitError, match="larger than the limit of 4 bytes"):
        Source(path, Path("a")).read(Limits(max_image_bytes=4))


def test_reading_takes_memory_for_what_is_there_and_not_for_what_may_be(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    for most in (2**32, 2**50, 2**63 - 1, 10**19):
        tracemalloc.start()
        try:
            assert Source(tmp_path / "a", Path("a")).read(Limits(max_image_bytes=most)) == b"12345"
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()


def test_a_pipe_is_read_up_to_a_limit_too(tmp_path):
    data = os.urandom(300_000)
    for most, whole in ((300_000, True), (299_999, False), (1, False)):
        read, write = os.pipe()
        writer = threading.Thread(target=written_and_closed, args=(write, data))
        writer.start()
        source = Source(Path(f"/dev/fd/{read}"), Path("a"))
        if whole:
            assert source.read(Limits(max_image_bytes=most)) == data
        else:
            with pytest.raises(ImageLimitError, match=f"larger than the limit of {most} bytes"):
                source.read(Limits(max_image_bytes=most))
        os.close(read)
        writer.join(10)


def written_and_closed(descriptor, data):
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as stream:
        stream.write(data)


def test_a_missing_source_and_a_folder_say_so(tmp_path):
    with pytest.raises(PolcError, match="none: there is no such file or folder$"):
        Source(tmp_path / "none", Path("none")).read()
    with pytest.raises(PolcError, match="is a folder, not a file$"):
        Source(tmp_path, Path("x")).read()


def test_a_file_is_written_with_the_permissions_of_a_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").stat().st_nlink == 1 and not leftovers(tmp_path)


def test_a_file_that_exists_is_kept_without_force_and_replaced_with_it(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match=f"^{path}: exists already; overwrite it with force=True$"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    write_file(path, b"new", force=True)
    assert path.read_bytes() == b"new" and not leftovers(tmp_path)


def test_a_file_that_appears_while_another_is_written_is_kept(tmp_path, monkeypatch):
    path, fsync = tmp_path / "a", os.fsync

    def slow(descriptor):
        fsync(descriptor)
        path.write_bytes(b"came meanwhile")

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(UsageError, match="exists already"):
        write_file(path, b"new")
    assert path.read_bytes() == b"came meanwhile" and not leftovers(tmp_path)


def test_a_file_system_without_hard_links_works_too(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(files.os, "link", refuse)
    write_file(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data" and not leftovers(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        write_file(tmp_path / "a", b"new")


def test_through_a_link_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder/real")
    write_file(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder/real").read_bytes() == b"data"


def test_a_device_is_written_to_and_not_replaced():
    write_file(Path("/dev/null"), b"data")
    write_file(Path("/dev/null"), b"data", force=True)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_pipe_is_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_file(tmp_path / "pipe", b"data")
    reader.join(10)
    assert got == [b"data"] and (tmp_path / "pipe").is_fifo()


def test_a_pipe_without_a_name_is_written_to():
    """As the shell's >(command) and /dev/stdout give one."""
    read, write = os.pipe()
    write_file(Path(f"/dev/fd/{write}"), b"data")
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        assert stream.read() == b"data"


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path):
    """With the process's file size limited to 1000 bytes, as on a full disk."""
    (tmp_path / "a").write_bytes(b"old")
    code = f"""
import resource, signal
from pathlib import Path
from polc_runtime.files.outputs import write_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(Path({str(tmp_path / "a")!r}), bytes(5000), force=True)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"ResourceError {tmp_path / 'a'}: the file system does not take files this large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_full_disk_says_so():
    with pytest.raises(
        ResourceError, match="^/dev/full: no space is left on the disk; free some and run again$"
    ):
        write_file(Path("/dev/full"), b"data")


def test_a_process_killed_while_it_writes_leaves_nothing_under_the_name(tmp_path):
    (tmp_path / "old").write_bytes(b"old")
    code = f"""
import os, time
from pathlib import Path
from polc_runtime.files.outputs import write_file
def announce(descriptor):
    print("written", flush=True)
    time.sleep(60)
os.fsync = announce
write_file(Path({str(tmp_path)!r}) / os.environ["NAME"], bytes(100_000), force=True)
"""
    for name in ("old", "new"):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "NAME": name}
        )
        with child:
            assert child.stdout.readline() == b"written\n"
            child.kill()
    assert (tmp_path / "old").read_bytes() == b"old"
    assert not (tmp_path / "new").exists()


def test_an_interrupt_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "a", b"data")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named(tmp_path):
    expected = re.escape(
        f"{tmp_path / 'none/a'}: the folder {tmp_path / 'none'} does not exist; make it first"
    )
    with pytest.raises(UsageError, match=expected):
        write_file(tmp_path / "none/a", b"data")
    with pytest.raises(UsageError, match=expected):
        Target(tmp_path / "none/a").check()


def test_a_folder_as_output_file_and_a_file_as_output_folder_are_errors(tmp_path):
    with pytest.raises(UsageError, match="is a folder, not a file"):
        write_file(tmp_path, b"data", force=True)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/a/b"):
        with pytest.raises(UsageError, match=f"^{tmp_path}/file: is a file, but a folder is needed here"):
            make_folder(path)


def test_a_target_makes_its_folders_only_when_it_is_written(tmp_path):
    target = Target(tmp_path / "x/y/a", make_folders=True)
    target.check()
    assert not list(tmp_path.iterdir())
    target.write(b"data")
    assert (tmp_path / "x/y/a").read_bytes() == b"data"


@pytest.mark.parametrize(
    "code, error_class",
    [
        (errno.ENOSPC, ResourceError),
        (errno.EDQUOT, ResourceError),
        (errno.EFBIG, ResourceError),
        (errno.EMFILE, ResourceError),
        (errno.ENFILE, ResourceError),
        (errno.ENOMEM, ResourceError),
        (errno.ENOENT, UsageError),
        (errno.EACCES, UsageError),
        (errno.EROFS, UsageError),
    ],
)
def test_what_the_system_lacks_is_no_error_of_the_user(code, error_class):
    assert type(explain(OSError(code, os.strerror(code)), "a")) is error_class


def test_too_many_open_files_are_a_lack_of_resources(tmp_path):
    code = f"""
import resource
from pathlib import Path
from polc_runtime.errors import error_kind
from polc_runtime.files.inputs import Source, explain
from polc_runtime.files.outputs import write_file
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
for act in (lambda: Source(Path({str(tmp_path)!r}, "a"), Path()).read(),
            lambda: write_file(Path({str(tmp_path)!r}, "b"), b"data")):
    try:
        act()
    except Exception as error:
        print(error.kind)
"""
    (tmp_path / "a").touch()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "resources\nresources\n"


def test_a_plain_file_is_read_within_its_limit_and_nothing_else_is(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    assert read_plain_file(tmp_path / "a", Limits(max_table_bytes=5), "max_table_bytes") == b"12345"
    with pytest.raises(LimitError, match="a has 5 bytes, the limit is 4 .*max_table_bytes"):
        read_plain_file(tmp_path / "a", Limits(max_table_bytes=4), "max_table_bytes")
    for name in ("none", "link", "pipe", ""):
        with pytest.raises(UsageError, match="does not exist or is not a regular file$"):
            read_plain_file(tmp_path / name, Limits(), "max_table_bytes")


@pytest.mark.parametrize(
    "code, words",
    [(errno.ENOSPC, "no space is left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied"),
     (errno.ENAMETOOLONG, "name is too long"), (errno.EDQUOT, "quota"), (errno.EIO, os.strerror(errno.EIO))],
)  # fmt: skip
def test_system_errors_are_one_line_with_the_file(code, words):
    message = str(explain(OSError(code, os.strerror(code), "elsewhere"), "out/a.polc"))
    assert message.startswith("out/a.polc: ") and words in message and "\n" not in message
    assert str(explain(OSError(code, os.strerror(code), "named"))).startswith("named: ")


def test_a_name_that_is_too_long_says_so(tmp_path):
    with pytest.raises(PolcError, match="the name is too long"):
        write_file(tmp_path / ("x" * 300), b"data")
    write_file(tmp_path / ("x" * 255), b"data")
