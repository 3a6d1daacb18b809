"""The `polc` command, run as a process of its own on a small exported bundle."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import polc_runtime
from polc_runtime.backends.op_library import find_op_library
from polc_runtime.bundle import find_bundle
from polc_runtime.bundle.ladder import ladder_json

RUNTIME = Path(polc_runtime.__file__).parent.parent
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if key != "POLC_BUNDLE"},
    "PYTHONPATH": os.pathsep.join([str(RUNTIME), os.environ.get("PYTHONPATH", "")]),
}
COMMAND = [sys.executable, "-m", "polc_runtime"]


@pytest.fixture
def polc(tiny_bundle, tmp_path):
    """Runs `polc` in `tmp_path`, with the tiny bundle as default; every run must end without a traceback."""

    def run(*arguments, input=None, **environment):
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=input,
            capture_output=True,
            cwd=tmp_path,
            env={**ENVIRONMENT, "POLC_BUNDLE": str(tiny_bundle), **environment},
            timeout=120,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run


def picture(height=48, width=80, seed=0):
    """Smooth noise, uint8 [height, width, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path, height=48, width=80, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(height, width, seed)).save(path)
    return path


def lines(stream):
    return stream.decode().splitlines()


def assert_fails(done, *words):
    """Exit code 2, nothing on standard output, and one error line that holds `words`."""
    assert done.returncode == 2, done
    assert done.stdout == b""
    (line,) = lines(done.stderr)
    assert line.startswith("polc: error: ")
    assert all(str(word) in line for word in words), line


def assert_works(done):
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"", done.stderr.decode()
    return done


def with_crc(data):
    """A `.polc` file with its checksum made right after it was changed."""
    return bytes(data[:-4]) + struct.pack("<I", zlib.crc32(bytes(data[:-4])))


def names(folder):
    """Every file below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def coded(polc, tmp_path):
    """A good `.polc` file, a.polc."""
    save(tmp_path / "made" / "a.png")
    assert_works(polc("compress", "made/a.png", "-o", "a.polc"))
    return tmp_path / "a.polc"


def test_an_image_goes_to_a_file_and_back_as_the_api_does_it(polc, tmp_path, tiny_bundle):
    from polc_runtime.codec.codec import Codec

    save(tmp_path / "a.png")
    done = assert_works(polc("compress", "a.png", "-o", "a.polc", "--quality", "3.3"))
    assert done.stdout == b""
    assert_works(polc("decompress", "a.polc", "-o", "back.png"))
    with Codec.load(tiny_bundle) as codec:
        assert (tmp_path / "a.polc").read_bytes() == codec.compress(picture(), 3.3)
        expected = codec.decompress((tmp_path / "a.polc").read_bytes())
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "back.png")), expected)
    assert names(tmp_path) == ["a.png", "a.polc", "back.png"]


@pytest.mark.parametrize("height, width", [(1, 1), (1, 500), (500, 1), (191, 193)])
def test_every_size_comes_back(polc, tmp_path, height, width):
    save(tmp_path / "a.png", height, width)
    assert_works(polc("compress", "a.png", "-o", "a.polc"))
    assert_works(polc("decompress", "a.polc", "-o", "back.png"))
    assert Image.open(tmp_path / "back.png").size == (width, height)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_colour_mode_is_taken(polc, tmp_path, mode):
    image = Image.fromarray(picture())
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
        if "A" in mode:
            image.putalpha(100)
    image.save(tmp_path / "a.tif")
    done = polc("compress", "a.tif", "-o", "a.polc")
    assert done.returncode == 0
    notice = "polc: notice: a.tif: transparent parts are laid on white"
    assert lines(done.stderr) == ([notice] if "A" in mode else [])


def test_a_folder_goes_to_a_folder(polc, tmp_path):
    for name in ("in/a.png", "in/b.bmp", "in/sub/c.png"):
        save(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no image")
    assert_works(polc("compress", "in", "-o", "out"))
    assert names(tmp_path / "out") == ["a.polc", "b.polc"]
    assert_works(polc("decompress", "out", "-o", "back", "--format", "ppm"))
    assert names(tmp_path / "back") == ["a.ppm", "b.ppm"]


def test_a_recursive_folder_keeps_its_sub_folders(polc, tmp_path):
    for name in ("in/a.png", "in/x/a.png", "in/x/y/b.png"):
        save(tmp_path / name)
    assert_works(polc("compress", "in/", "-o", "out/", "--recursive"))
    assert names(tmp_path / "out") == ["a.polc", "x/a.polc", "x/y/b.polc"]


def test_standard_input_and_output_make_a_pipe(polc, tmp_path, coded):
    image = (tmp_path / "made/a.png").read_bytes()
    packed = assert_works(polc("compress", "-", "-o", "-", input=image))
    assert packed.stdout == coded.read_bytes()
    back = assert_works(polc("decompress", "-", "-o", "-", input=packed.stdout))
    assert Image.open(io.BytesIO(back.stdout)).size == (80, 48)
    assert_works(polc("verify", "-", input=packed.stdout))
    assert names(tmp_path) == ["a.polc", "made/a.png"]


def test_a_reader_that_goes_away_is_one_line(tiny_bundle, tmp_path):
    save(tmp_path / "a.png")
    child = subprocess.Popen(
        [*COMMAND, "compress", "a.png", "-o", "-", "--bundle", str(tiny_bundle)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=ENVIRONMENT,
    )  # fmt: skip
    child.stdout.close()
    with child:
        assert lines(child.stderr.read()) == [
            "polc: error: a.png: standard output: was closed by its reader before all was written"
        ]
    assert child.returncode == 2


def test_json_tells_all_and_nothing_else_is_printed(polc, tmp_path):
    save(tmp_path / "a.png", 48, 80)
    save(tmp_path / "b.png", 1, 500)
    done = assert_works(polc("compress", "a.png", "b.png", "-o", "out", "--quality", "2.5", "--json"))
    document = json.loads(done.stdout)
    assert document["command"] == "compress" and document["failed"] == 0
    first, second = document["results"]
    data = (tmp_path / "out/a.polc").read_bytes()
    assert first.pop("seconds") > 0
    assert first == {
        "input": "a.png", "output": str(Path("out/a.polc")), "ok": True, "width": 80, "height": 48,
        "quality": 2.5, "bytes": len(data), "bpp": 8 * len(data) / (80 * 48),
        "sha256": hashlib.sha256(data).hexdigest(), "notices": [], "warnings": [],
    }  # fmt: skip
    assert (second["width"], second["height"]) == (500, 1)
    done = assert_works(polc("decompress", "out/a.polc", "-o", "a.webp", "--json"))
    (result,) = json.loads(done.stdout)["results"]
    assert result["output_bytes"] == (tmp_path / "a.webp").stat().st_size
    assert (result["width"], result["quality"], result["bytes"]) == (80, 2.5, len(data))


def test_json_holds_the_errors_of_the_files_that_failed(polc, tmp_path):
    save(tmp_path / "a.png")
    done = polc("compress", "a.png", "none.png", "-o", "out", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 2 and document["failed"] == 1
    assert [result["ok"] for result in document["results"]] == [True, False]
    assert document["results"][1]["error"] == "none.png: there is no such file or folder"
    assert document["results"][1]["kind"] == "usage"
    assert lines(done.stderr) == ["polc: error: none.png: there is no such file or folder"]


def test_json_and_binary_output_exclude_each_other(polc, tmp_path):
    save(tmp_path / "a.png")
    assert_fails(polc("compress", "a.png", "-o", "-", "--json"), "--json", "-o -")


def on_a_terminal(*arguments, folder, stream, bundle):
    """Runs `polc` with one stream on a pseudo-terminal; gives the exit code and the text of both streams."""
    terminal, end = os.openpty()
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    child = subprocess.Popen(
        [*COMMAND, *arguments, "--bundle", str(bundle)],
        cwd=folder, env=ENVIRONMENT, **{stream: end, other: subprocess.PIPE},
    )  # fmt: skip
    os.close(end)
    output = b""
    with contextlib.suppress(OSError):  # Linux: EIO once the other end is closed
        while part := os.read(terminal, 4096):
            output += part
    os.close(terminal)
    with child:
        output += getattr(child, other).read()
    return child.returncode, output.decode()


def test_a_terminal_shows_a_progress_bar_and_errors_on_lines_of_their_own(tmp_path, tiny_bundle):
    for name in ("in/a.png", "in/c.png"):
        save(tmp_path / name)
    (tmp_path / "in/b.png").touch()
    code, output = on_a_terminal(
        "compress", "in", "-o", "out", folder=tmp_path, stream="stderr", bundle=tiny_bundle
    )
    assert code == 2
    assert "compress  [" in output and "3/3" in output.splitlines()[-1]
    assert "\r\x1b[Kpolc: error: in/b.png: the file is empty\r\n" in output


def test_binary_output_is_not_written_to_a_terminal(tmp_path, tiny_bundle):
    save(tmp_path / "a.png")
    code, output = on_a_terminal(
        "compress", "a.png", "-o", "-", folder=tmp_path, stream="stdout", bundle=tiny_bundle
    )
    assert code == 2 and output.startswith("polc: error: '-o -' would write binary data to the terminal")


def test_verbose_prints_a_line_for_each_file_on_standard_error(polc, tmp_path):
    save(tmp_path / "a.png")
    done = polc("compress", "a.png", "-o", "a.polc", "-v")
    _, line = lines(done.stderr)
    size = (tmp_path / "a.polc").stat().st_size
    assert line.startswith(f"polc: a.png -> a.polc: 80x48, quality 4, {size} bytes, ")
    assert done.returncode == 0 and done.stdout == b""


def test_inputs_that_would_write_one_file_are_an_error_before_any_work(polc, tmp_path):
    for name in ("in/a.png", "in/a.bmp", "in/b.png"):
        save(tmp_path / name)
    assert_fails(polc("compress", "in", "-o", "out"), "in/a.bmp and in/a.png", "out/a.polc")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_the_input_is_an_error_even_with_force(polc, tmp_path):
    content = save(tmp_path / "a.png").read_bytes()
    assert_fails(polc("compress", "a.png", "-o", "./a.png", "--force"), "a.png: is an input")
    assert (tmp_path / "a.png").read_bytes() == content


def test_nothing_is_overwritten_without_force(polc, tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.polc").write_bytes(b"old")
    assert_fails(polc("compress", "a.png", "-o", "a.polc"), "a.polc: exists already", "--force")
    assert (tmp_path / "a.polc").read_bytes() == b"old"
    assert_works(polc("compress", "a.png", "-o", "a.polc", "--force"))
    assert (tmp_path / "a.polc").read_bytes() != b"old"


def test_bad_files_do_not_stop_the_good_ones(polc, tmp_path):
    for name in ("a.png", "c.png", "e.png"):
        save(tmp_path / "in" / name)
    (tmp_path / "in/b.png").write_text("no image")
    (tmp_path / "in/d.png").touch()
    done = polc("compress", "in", "-o", "out")
    assert done.returncode == 2 and done.stdout == b""
    assert lines(done.stderr) == [
        "polc: error: in/b.png: not an image of a kind that can be read",
        "polc: error: in/d.png: the file is empty",
    ]
    assert names(tmp_path / "out") == ["a.polc", "c.polc", "e.polc"]


def damaged_images():
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    whole = stream.getvalue()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    return {
        "empty": b"",
        "text": b"no image",
        "truncated": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
    }


@pytest.mark.parametrize("kind", damaged_images())
def test_a_bad_image_is_one_line_and_leaves_nothing(polc, tmp_path, kind):
    (tmp_path / "bad.png").write_bytes(damaged_images()[kind])
    assert_fails(polc("compress", "bad.png", "-o", "out.polc"), "bad.png: ")
    assert names(tmp_path) == ["bad.png"]


DAMAGES = {
    "empty": lambda data: b"",
    "no polc file": lambda data: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "one byte": lambda data: data[:1],
    "truncated": lambda data: data[: len(data) // 2],
    "last byte missing": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "bit flipped in the middle": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "symbols changed behind a right CRC": lambda data: with_crc(
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "another model's": lambda data: with_crc(data[:5] + bytes(8) + data[13:]),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_bad_polc_file_is_one_line_and_leaves_nothing(polc, tmp_path, coded, kind):
    (tmp_path / "bad.polc").write_bytes(DAMAGES[kind](coded.read_bytes()))
    before = names(tmp_path)
    assert_fails(polc("decompress", "bad.polc", "-o", "out.png"), "bad.polc: ")
    assert_fails(polc("verify", "bad.polc"), "bad.polc: ")
    assert names(tmp_path) == before


def test_another_synthesis_is_a_warning_and_the_image_is_written(polc, tmp_path, coded):
    data = coded.read_bytes()
    (tmp_path / "b.polc").write_bytes(with_crc(data[:13] + bytes(4) + data[17:]))
    (tmp_path / "c.polc").write_bytes((tmp_path / "b.polc").read_bytes())
    done = polc("decompress", "b.polc", "c.polc", "-o", "out")
    assert done.returncode == 0
    assert [line.split(": made")[0] for line in lines(done.stderr)] == [
        "polc: warning: b.polc", "polc: warning: c.polc",
    ]  # fmt: skip
    assert names(tmp_path / "out") == ["b.png", "c.png"]


def test_verify_prints_a_line_for_each_file_and_fails_if_one_is_bad(polc, tmp_path, coded):
    assert assert_works(polc("verify", "a.polc")).stdout == b"a.polc: ok\n"
    (tmp_path / "b.polc").write_bytes(coded.read_bytes()[:-7])
    done = polc("verify", ".")
    assert done.returncode == 2
    assert lines(done.stdout) == ["a.polc: ok"]
    (line,) = lines(done.stderr)
    assert line.startswith("polc: error: b.polc: ")


def test_info_of_a_file_needs_no_bundle(polc, coded):
    done = assert_works(polc("info", "a.polc", POLC_BUNDLE="/none"))
    text = done.stdout.decode()
    assert text.startswith("a.polc\n") and "width" in text and "fingerprint" in text
    (facts,) = json.loads(assert_works(polc("info", "a.polc", "--json", POLC_BUNDLE="/none")).stdout)[
        "results"
    ]
    assert (facts["width"], facts["height"], facts["quality"]) == (80, 48, 4.0)
    assert sum(facts["section_bytes"].values()) == facts["bytes"] == coded.stat().st_size
    assert facts["fingerprint"] == coded.read_bytes()[5:13].hex()


def test_info_of_a_bundle_is_its_summary(polc, tiny_bundle):
    text = assert_works(polc("info", tiny_bundle)).stdout.decode()
    assert "checks against PyTorch, all passed" in text and "note         untrained" in text
    graphs = [line.split() for line in text.splitlines() if "fp32" in line]
    assert len(graphs) == 13 and graphs[0][0] == "analysis" and graphs[-1][0] == "synthesis"
    assert find_op_library().attention in text
    done = assert_works(polc("info", tiny_bundle, "--json"))
    (facts,) = json.loads(done.stdout)["results"]
    assert facts["kind"] == "bundle" and len(facts["fingerprint"]) == 64
    assert {"analysis", "hyper_synthesis", "synthesis"} <= {graph["name"] for graph in facts["graphs"]}
    assert facts["attention"] == find_op_library().attention


def test_info_knows_the_bundles_that_come_with_polc_by_name_unless_a_file_has_it(polc, tmp_path, coded):
    done = assert_works(polc("info", "nano", "--json", POLC_BUNDLE=""))
    (facts,) = json.loads(done.stdout)["results"]
    assert (facts["input"], facts["kind"], facts["name"]) == ("nano", "bundle", "polc-nano")
    assert assert_works(polc("info", "nano")).stdout.startswith(b"nano\n  model")
    coded.rename(tmp_path / "nano")
    done = assert_works(polc("info", "nano", "--json"))
    assert json.loads(done.stdout)["results"][0]["kind"] == "polc"


def test_info_of_a_bundle_that_only_decodes_works(polc, tmp_path, tiny_bundle):
    shutil.copytree(tiny_bundle, tmp_path / "decoder.bundle")
    manifest = json.loads((tmp_path / "decoder.bundle/manifest.json").read_text())
    encoding = ("analysis", "hyper_analysis")
    manifest["graphs"] = [graph for graph in manifest["graphs"] if graph["name"] not in encoding]
    for graph in encoding:
        (tmp_path / f"decoder.bundle/graphs/{graph}.onnx").unlink()
    (tmp_path / "decoder.bundle/manifest.json").write_text(json.dumps(manifest))
    text = assert_works(polc("info", "decoder.bundle")).stdout.decode()
    assert "synthesis" in text and not [line for line in text.splitlines() if line.startswith("  analysis")]


@pytest.fixture
def ladder(tmp_path, tiny_bundle):
    """A ladder of two bundles, the small one first."""
    for name, bundle in (("q1", tiny_bundle), ("q3", find_bundle("nano"))):
        shutil.copytree(bundle, tmp_path / "ladder" / name)
    (tmp_path / "ladder/ladder.json").write_text(ladder_json([(1, "q1"), (3, "q3")]))
    return tmp_path / "ladder"


def test_files_are_decoded_with_the_bundles_that_made_them(polc, tmp_path, coded, tiny_bundle):
    assert_works(polc("compress", "made/a.png", "-o", "nano.polc", "--bundle", "nano"))
    known = {"POLC_BUNDLE": "", "POLC_BUNDLES": str(tiny_bundle.parent)}
    done = assert_works(polc("verify", "a.polc", "nano.polc", "--json", **known))
    made_by = [Path(result["bundle"]).name for result in json.loads(done.stdout)["results"]]
    assert made_by == [tiny_bundle.name, "nano"]
    assert_works(polc("decompress", "a.polc", "nano.polc", "-o", "out", **known))
    assert names(tmp_path / "out") == ["a.png", "nano.png"]
    done = polc("verify", "a.polc", POLC_BUNDLE="")
    assert_fails(
        done, "a.polc: no bundle has the fingerprint", coded.read_bytes()[5:13].hex(), "$POLC_BUNDLES"
    )
    assert_fails(polc("verify", "a.polc", "--bundle", "nano", **known), "made with another model")


def test_a_ladder_compresses_with_the_bundle_of_the_quality(polc, tmp_path, ladder, tiny_bundle):
    save(tmp_path / "a.png", 100, 120)
    sizes = {}
    for quality, bundle in ((1, tiny_bundle), (3, "nano")):
        done = assert_works(
            polc(
                "compress",
                "a.png",
                "-o",
                f"{quality}.polc",
                "--bundle",
                ladder,
                "--quality",
                quality,
                "--json",
            )
        )
        (facts,) = json.loads(done.stdout)["results"]
        sizes[quality] = facts["bytes"]
        assert facts["quality"] == quality
        assert_works(polc("compress", "a.png", "-o", "one.polc", "--bundle", bundle, "--force"))
        assert (tmp_path / f"{quality}.polc").read_bytes() == (tmp_path / "one.polc").read_bytes()
    done = polc("compress", "a.png", "-o", "x.polc", "--bundle", ladder, "--quality", 2)
    assert_fails(done, "no bundle of quality 2; there are 1, 3")
    assert_works(polc("verify", "1.polc", "3.polc", "--bundle", ladder))
    largest = max(sizes.values())
    assert_works(polc("compress", "a.png", "-o", "fits.polc", "--bundle", ladder, "--max-bytes", largest))
    assert (tmp_path / "fits.polc").read_bytes() == (tmp_path / "3.polc").read_bytes()
    done = polc("compress", "a.png", "-o", "x.polc", "--bundle", ladder, "--bpp", "0.001")
    assert_fails(done, "a.png: the smallest file, at quality 1, has", "1 bytes are too few")


def test_a_variant_is_chosen_by_name(polc, tmp_path, tiny_bundle):
    shutil.copytree(tiny_bundle, tmp_path / "two.bundle")
    manifest = json.loads((tmp_path / "two.bundle/manifest.json").read_text())
    light = {"name": "light", "analysis": "analysis", "synthesis": "synthesis", "codec_id": "ab" * 32}
    (tmp_path / "two.bundle/manifest.json").write_text(json.dumps({**manifest, "variants": [light]}))
    save(tmp_path / "a.png")
    assert_works(polc("compress", "a.png", "-o", "a.polc", "--bundle", "two.bundle", "--variant", "light"))
    assert (tmp_path / "a.polc").read_bytes()[13:17] == bytes([0xAB] * 4)
    assert_works(polc("decompress", "a.polc", "-o", "a.ppm", "--bundle", "two.bundle", "--variant", "light"))
    assert "variant      light" in assert_works(polc("info", "two.bundle")).stdout.decode()
    for command in (["compress", "a.png", "-o", "b.polc"], ["decompress", "a.polc", "-o", "b.ppm"]):
        assert_fails(polc(*command, "--bundle", "two.bundle", "--variant", "none"), "none", "light")


def test_what_runs_the_attention_is_said_by_info_and_by_verbose_and_json_runs(polc, tiny_bundle, tmp_path):
    said = "portable (POLC_OP_LIBRARY=none)"
    done = assert_works(polc("info", tiny_bundle, "--json", POLC_OP_LIBRARY="none"))
    assert json.loads(done.stdout)["results"][0]["attention"] == said
    save(tmp_path / "a.png")
    done = polc("compress", "a.png", "-o", "a.polc", "--json", "-v", POLC_OP_LIBRARY="none")
    assert json.loads(done.stdout)["runs"]["attention"] == said
    assert f"attention {said}" in lines(done.stderr)[0]


def test_info_of_something_else_is_one_line(polc, tmp_path):
    (tmp_path / "folder").mkdir()
    assert_fails(polc("info", "folder"), "folder")
    assert_fails(polc("info", "none.polc"), "none.polc: there is no such file")


def test_max_bytes_is_kept_and_nearly_reached(polc, tmp_path):
    save(tmp_path / "a.png", 200, 300)
    sizes = {}
    for quality in (1, 8):
        assert_works(polc("compress", "a.png", "-o", f"{quality}.polc", "--quality", quality))
        sizes[quality] = (tmp_path / f"{quality}.polc").stat().st_size
    limit = max(sizes.values()) + 10
    assert_works(polc("compress", "a.png", "-o", "all.polc", "--max-bytes", limit))
    assert (tmp_path / "all.polc").read_bytes() == (tmp_path / "8.polc").read_bytes()
    middle = (sizes[1] + sizes[8]) // 2
    done = assert_works(polc("compress", "a.png", "-o", "some.polc", "--max-bytes", middle, "--json"))
    (facts,) = json.loads(done.stdout)["results"]
    assert (tmp_path / "some.polc").stat().st_size == facts["bytes"] <= middle
    assert_works(polc("verify", "some.polc"))


def test_max_bytes_that_cannot_be_reached_says_the_least_size(polc, tmp_path):
    save(tmp_path / "a.png")
    assert_works(polc("compress", "a.png", "-o", "least.polc", "--quality", 1))
    least = (tmp_path / "least.polc").stat().st_size
    done = polc("compress", "a.png", "-o", "a.polc", "--max-bytes", 20)
    assert_fails(done, f"a.png: the smallest file, at quality 1, has {least} bytes; 20 bytes are too few")
    assert not (tmp_path / "a.polc").exists()


def test_bpp_is_kept(polc, tmp_path):
    save(tmp_path / "a.png", 200, 300)
    done = polc("compress", "a.png", "-o", "a.polc", "--bpp", "0.001")
    assert_fails(done, "a.png: the smallest file", "0.001 bpp is too low")
    bpp = 1.2 * float(done.stderr.split(b"quality 1, has ")[1].split()[0])
    (facts,) = json.loads(
        assert_works(polc("compress", "a.png", "-o", "a.polc", "--bpp", bpp, "--json")).stdout
    )["results"]
    assert facts["bpp"] == 8 * (tmp_path / "a.polc").stat().st_size / 60_000 <= bpp


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["compress"], ["IMAGES", "polc compress --help"]),
        (["compress", "a.png"], ["-o"]),
        (["compress", "a.png", "-o", "x", "--quality", "9"], ["--quality must lie between 1 and 8, got 9"]),
        (["compress", "a.png", "-o", "x", "--quality", "nan"], ["--quality", "nan"]),
        (["compress", "a.png", "-o", "x", "--bpp", "inf"], ["--bpp", "inf"]),
        (
            ["compress", "a.png", "-o", "x", "--bpp", "1", "--max-bytes", "9"],
            ["--bpp and --max-bytes are mutually"],
        ),
        (["compress", "a.png", "-o", "none/x.polc"], ["none/x.polc: the folder none does not exist"]),
        (["compress", "a.png", "a.png", "-o", "out"], ["would both be written to out/a.polc"]),
        (["compress", "a.png", "-o", "x", "--threads", "0"], ["--threads"]),
        (["compress", "a.png", "-o", "x", "--backend", "abacus"], ["abacus", "onnxruntime"]),
        (["compress", "a.png", "-o", "x", "--bundle", "none"], ["none"]),
        (["decompress", "a.polc", "-o", "x.xyz"], [".png .jpg .webp"]),
        (["decompress", "a.polc", "-o", "x.png", "--format", "gif"], [".png .jpg .webp", "gif"]),
        (["decompress", "a.polc", "-o", "x.png", "--format", "jpg"], ["--format jpg does not fit"]),
        (["verify", "folder"], ["folder: no file in this folder", ".polc"]),
        (["explode"], ["explode"]),
    ],
)
def test_a_wrong_use_is_one_line(polc, tmp_path, arguments, words):
    save(tmp_path / "a.png")
    (tmp_path / "folder").mkdir()
    assert_fails(polc(*arguments), *words)
    assert names(tmp_path) == ["a.png"]


def test_without_any_bundle_the_packaged_one_is_used_and_said(polc, tmp_path):
    save(tmp_path / "a.png")
    done = polc("compress", "a.png", "-o", "x.polc", POLC_BUNDLE="")
    assert done.returncode == 0 and b"using the bundle nano" in done.stderr
    assert_fails(
        polc("compress", "a.png", "-o", "y.polc", POLC_BUNDLE="none"), "none is not a bundle", "nano"
    )


def test_a_name_with_a_line_break_stays_one_line(polc, tmp_path):
    (tmp_path / "a\nb.png").write_text("no image")
    assert_fails(polc("compress", "a\nb.png", "-o", "x.polc"), r"a\nb.png: not an image")


def test_a_name_that_is_no_utf_8_works(polc, tmp_path):
    name = os.fsdecode(b"\xff.png")
    save(tmp_path / name)
    assert_works(polc("compress", name, "-o", "out/"))
    done = assert_works(polc("verify", "out", "--json"))
    assert json.loads(done.stdout)["results"][0]["ok"]
    assert assert_works(polc("verify", "out")).stdout == b"out/\\udcff.polc: ok\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_help_loads_no_numpy_and_no_image_library(arguments):
    code = f"""
import sys
from polc_runtime.cli import main
code = main({arguments!r})
print(code, sorted({{"numpy", "PIL", "onnxruntime"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ENVIRONMENT, text=True)
    assert done.stderr == "0 []\n"
    assert ("Usage: polc" in done.stdout) == (arguments != ["--version"])


@pytest.mark.parametrize("command", ["compress", "decompress", "infer", "verify", "info"])
def test_the_help_of_each_command_has_examples(polc, command):
    done = assert_works(polc(command, "--help"))
    assert f"Usage: polc {command}" in done.stdout.decode() and b"Examples:\n" in done.stdout


def started(tiny_bundle, folder, count=12):
    """A `polc compress` of several images that has just written the first one."""
    for number in range(count):
        save(folder / f"in/{number:02}.png", 256, 384, seed=number)
    child = subprocess.Popen(
        [*COMMAND, "compress", "in", "-o", "out", "--bundle", str(tiny_bundle), "--threads", "1"],
        stderr=subprocess.PIPE, cwd=folder, env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (folder / "out/00.polc").exists():
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.001)
    return child


def test_an_interrupt_exits_with_130_and_leaves_only_whole_files(polc, tmp_path, tiny_bundle):
    with started(tiny_bundle, tmp_path) as child:
        child.send_signal(signal.SIGINT)
        stderr = child.stderr.read()
    assert child.returncode == 130
    assert b"Traceback" not in stderr and lines(stderr)[-1] == "polc: interrupted"
    written = names(tmp_path / "out")
    assert 0 < len(written) < 12 and all(name.endswith(".polc") for name in written)
    assert_works(polc("verify", "out"))


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.1])
def test_a_kill_leaves_only_whole_files(polc, tmp_path, tiny_bundle, delay):
    with started(tiny_bundle, tmp_path) as child:
        time.sleep(delay)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert 0 < len([name for name in names(tmp_path / "out") if name.endswith(".polc")]) < 12
    assert_works(polc("verify", "out"))
