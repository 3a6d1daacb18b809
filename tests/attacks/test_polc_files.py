"""Hostile `.polc` files against the packaged codec: a BitstreamError for each, soon and in little memory."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from commands import PEAK_KILOBYTES

from polc_runtime import BitstreamError, Codec, UsageError
from polc_runtime.bitstream.container import Container
from polc_runtime.limits import Limits

ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("POLC_")}
FIXED = struct.calcsize("<4sB8s4sIIH")


@pytest.fixture(scope="module")
def codec():
    with Codec.load("nano", threads=1) as codec:
        yield codec


@pytest.fixture(scope="module")
def file(codec):
    """A real file of a small picture."""
    pixels = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
    return codec.compress(pixels, 2.0)


def sealed(body):
    """A body with a CRC that fits: an attacker can make one."""
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def refused(codec, data):
    with pytest.raises(BitstreamError) as caught:
        codec.decode(data)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message


def test_a_real_file_cut_at_any_byte_is_refused(codec, file):
    for size in range(len(file)):
        refused(codec, file[:size])


def test_a_real_file_cut_and_sealed_again_at_a_byte_of_its_ends_is_refused(codec):
    """That cuts are found does not rest on the CRC. The file has no optional section to cut off."""
    file = codec.compress(np.zeros((20, 30, 3), np.uint8), 2.0, portable=False)
    for size in [*range(FIXED, FIXED + 40), *range(len(file) - 60, len(file) - 4)]:
        refused(codec, sealed(file[:size]))


def test_any_bit_of_the_header_flipped_is_refused_by_what_it_says(codec, file):
    """With the CRC made anew, so that each field's own check answers; the codec's id alone only warns."""
    body = file[:-4]
    messages = {}
    for bit in range(8 * FIXED):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        if 13 <= bit // 8 < 17:
            with pytest.warns(UserWarning, match="another synthesis"):
                codec.decode(sealed(flipped))
            continue
        messages[bit // 8] = _outcome(codec, sealed(flipped))
    assert all("not a .polc file" in messages[byte] for byte in range(4))
    assert "version" in messages[4]
    assert all("made with another model" in messages[byte] for byte in range(5, 13))
    assert "quality" in messages[26]


def _outcome(codec, data):
    """The message; a flipped low bit of width, height or quality may give a sound header of another image."""
    try:
        codec.decode(data)
    except BitstreamError as error:
        return str(error)
    header = codec.header(data)
    padded = codec.plan.padded_size(header.height, header.width)
    assert padded == (192, 192), "the latent has another size, but decodes"
    return "decodes, as another part of the padded image"


def test_any_bit_of_the_streams_flipped_and_sealed_again_is_refused(codec, file):
    """The checksums of symbols see to it: 16 bits for each step."""
    container = Container.unpack(file)
    random = np.random.default_rng(5)
    for name in ("z", "y"):
        stream = getattr(container, name)
        for bit in random.integers(0, 8 * len(stream), 60):
            changed = bytearray(stream)
            changed[bit // 8] ^= 1 << bit % 8
            refused(codec, dataclasses.replace(container, **{name: bytes(changed)}).pack())


@pytest.mark.parametrize("length", [0, 1, 7, 2**7, 2**14, 2**28 - 1, 2**32 - 1, 2**35 - 1])
def test_any_length_of_the_first_section_is_refused_in_no_time(codec, file, length):
    """The section z, whose own length is replaced by another one, in as few bytes as it takes."""
    body, at = file[:-4], FIXED + 1
    while body[at] & 0x80:
        at += 1
    data = sealed(body[: FIXED + 1] + leb128(length) + body[at + 1 :])
    started = time.process_time()
    refused(codec, data)
    assert time.process_time() - started < 1


def leb128(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def header_of(file, width, height):
    container = Container.unpack(file)
    return dataclasses.replace(
        container, header=dataclasses.replace(container.header, width=width, height=height)
    )


@pytest.mark.parametrize(("width", "height"), [(65535, 65535), (16385, 16384), (1, 65536), (2**32 - 1, 1)])
def test_a_huge_image_is_refused_with_the_name_of_the_limit(codec, file, width, height):
    data = header_of(file, 1, 1).pack()
    fields = struct.pack("<II", width, height)
    message = refused(codec, sealed(data[:17] + fields + data[25:-4]))
    assert "max_pixels" in message or "max_side" in message


BOMB = f"""
import re, sys, time
from pathlib import Path
from polc_runtime import BitstreamError, Codec
with Codec.load("nano", threads=1) as codec:
    started = time.process_time()
    try:
        codec.decode(Path(sys.argv[1]).read_bytes())
    except BitstreamError as error:
        print(time.process_time() - started, {PEAK_KILOBYTES}, error)
"""


@pytest.mark.parametrize(("width", "height"), [(16384, 16384), (65535, 4096), (1, 65535)])
def test_the_largest_image_in_a_few_bytes_takes_little_time_and_memory(tmp_path, file, width, height):
    """As large as the limits admit; the streams end long before."""
    (tmp_path / "bomb.polc").write_bytes(header_of(file, width, height).pack())
    command = [sys.executable, "-c", BOMB, str(tmp_path / "bomb.polc")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seconds, kilobytes, message = done.stdout.split(maxsplit=2)
    assert float(seconds) < 2 and int(kilobytes) < 2**20 and "stream" in message


def test_the_limits_are_those_of_the_environment_and_of_max_pixels(tmp_path, file):
    (tmp_path / "a.polc").write_bytes(header_of(file, 400, 300).pack())

    def info(*options, **environment):
        command = [sys.executable, "-m", "polc_runtime", *options, "info", str(tmp_path / "a.polc")]
        return subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **environment})

    for done in (info("--max-pixels", "119999"), info(POLC_MAX_SIDE="399")):
        assert done.returncode == 2 and "raise it by" in done.stderr and "Traceback" not in done.stderr
    assert info("--max-pixels", "120000", POLC_MAX_PIXELS="1").returncode == 0
    done = info(POLC_MAX_BYTES="30")
    assert done.returncode == 2 and "limit of 30 bytes (raise it by $POLC_MAX_BYTES" in done.stderr
    done = info(POLC_MAX_PIXELS="1e9")
    assert (
        done.returncode == 2 and "POLC_MAX_PIXELS is '1e9', expected a positive whole number" in done.stderr
    )


@pytest.mark.parametrize("value", ["x", "-1", "0", "1e9", "9" * 30, "\u0663"])
def test_an_environment_that_is_no_limit_is_named(value):
    with pytest.raises(UsageError, match="POLC_MAX_SIDE is .*, expected a positive whole number"):
        Limits.from_environment({"POLC_MAX_SIDE": value})


def test_every_limit_is_taken_from_the_environment():
    names = [field.name for field in dataclasses.fields(Limits)]
    given = {f"POLC_{name.upper()}": str(number) for number, name in enumerate(names, 1)}
    assert dataclasses.astuple(Limits.from_environment(given)) == tuple(range(1, len(names) + 1))
    assert Limits.from_environment({"POLC_MAX_SIDE": ""}) == Limits()


def test_limits_of_the_api_are_the_callers(file, codec):
    strict = Codec(codec.bundle, codec.backend, limits=Limits(max_pixels=100))
    assert "max_pixels" in refused(strict, file)
