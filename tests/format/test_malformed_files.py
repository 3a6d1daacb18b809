"""Files that docs/bitstream.md does not allow: polc and the plain decoder refuse the same ones."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import plain_decoder
import pytest
from golden_format import golden_file
from plain_encoder import join, leb128, seal, section

from polc_runtime import Codec
from polc_runtime.bitstream.container import Container
from polc_runtime.errors import BitstreamError

DATA = golden_file("nano-1x1")
FIXED = DATA[:27]
PARTS = plain_decoder.parse(DATA).critical()
Z, Y, SUMS, CALIBRATION = (PARTS[kind] for kind in (1, 2, 3, 4))
SEVERAL = golden_file("nano-streams")


def with_field(at: int, layout: str, value: int) -> bytes:
    """The file with another value in its fixed part."""
    packed = struct.pack(layout, value)
    return seal(FIXED[:at] + packed + DATA[at + len(packed) : -4])


def with_parts(**changed: bytes) -> bytes:
    """The file with other contents of its sections."""
    names = {"z": Z, "y": Y, "sums": SUMS, "calibration": CALIBRATION}
    return join(FIXED, enumerate((names | changed).values(), 1))


def in_order(*kinds: int) -> bytes:
    """The file with its sections in another order; unknown ones are empty."""
    return join(FIXED, [(kind, PARTS.get(kind, b"")) for kind in kinds])


def with_other_sum(index: int) -> bytes:
    sums = bytearray(SUMS)
    sums[2 * index] ^= 1
    return with_parts(sums=bytes(sums))


def with_other_streams(change: Callable[[bytes], bytes]) -> bytes:
    """The file of several streams with another section y."""
    parts = plain_decoder.parse(SEVERAL).critical()
    return join(SEVERAL[:27], (parts | {2: change(parts[2])}).items())


REST = b"".join(section(kind, PARTS[kind]) for kind in (2, 3, 4))

MALFORMED = {
    "no bytes": b"",
    "another magic": seal(b"POLD" + DATA[4:-4]),
    "the draft version": with_field(4, "<B", 0),
    "version 2, with a plan that version 1 holds": with_field(4, "<B", 2),
    "a later version": with_field(4, "<B", 3),
    "another fingerprint": with_field(5, "<B", FIXED[5] ^ 1),
    "no width": with_field(17, "<I", 0),
    "no height": with_field(21, "<I", 0),
    "a width over the limit": with_field(17, "<I", 65536),
    "a height over the limit": with_field(21, "<I", 2**32 - 1),
    "too many pixels": seal(FIXED[:17] + struct.pack("<II", 16385, 16384) + DATA[25:-4]),
    "quality too low": with_field(25, "<H", 255),
    "quality too high": with_field(25, "<H", 2049),
    "no sections": seal(FIXED),
    "no z": in_order(2, 3, 4),
    "no y": in_order(1, 3, 4),
    "no checksums": in_order(1, 2, 4),
    "z twice": in_order(1, 1, 2, 3, 4),
    "calibration twice": in_order(1, 2, 3, 4, 4),
    "calibration before the checksums": in_order(1, 2, 4, 3),
    "y before z": in_order(2, 1, 3, 4),
    "an unknown type 0": in_order(0, 1, 2, 3, 4),
    "an unknown type 5": in_order(1, 2, 3, 4, 5),
    "an unknown type 127": in_order(1, 2, 127, 3),
    "a section longer than the file": seal(FIXED + b"\x01" + leb128(1000) + DATA[30:-4]),
    "a length of more bytes than needed": seal(FIXED + bytes([1, len(Z) | 128, 0]) + Z + REST),
    "a length of six bytes": seal(DATA[:-4] + b"\xc8" + b"\x80" * 5 + b"\x01"),
    "more sections than the limit": seal(DATA[:-4] + b"\xc8\x00" * (65536 - 3)),
    "a type without a length": seal(DATA[:-4] + b"\xc8"),
    "too few checksums": with_parts(sums=SUMS[:-2]),
    "too many checksums": with_parts(sums=SUMS + b"\0\0"),
    "an empty calibration": with_parts(calibration=b""),
    "a calibration without a seed": with_parts(calibration=CALIBRATION[:5]),
    "a tenth exponent": with_parts(calibration=CALIBRATION[:4] + b"\x15" + CALIBRATION[5:]),
    "an empty z": with_parts(z=b""),
    "z cut within a word": with_parts(z=Z[:-1]),
    "z cut by a word": with_parts(z=Z[:-4]),
    "z with a word too many": with_parts(z=Z + bytes(4)),
    "z with an impossible state": with_parts(z=Z[:7] + b"\xff" + Z[8:]),
    "an empty y": with_parts(y=b""),
    "y cut by a word": with_parts(y=Y[:-4]),
    "y with a word too many": with_parts(y=Y + bytes(4)),
    "another checksum of z": with_other_sum(0),
    "another checksum of step 0": with_other_sum(1),
    "another checksum of step 8": with_other_sum(9),
    "streams longer than their section": with_other_streams(lambda y: leb128(2000) + y[2:]),
    "streams without their lengths": with_other_streams(lambda y: b""),
    "a stream shorter than its state": with_other_streams(lambda y: b"\x04" + y[2:]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_an_error_in_both(name: str, codec: Codec, bundle: plain_decoder.Bundle) -> None:
    with pytest.raises(BitstreamError):
        codec.decode(MALFORMED[name])
    with pytest.raises(ValueError):  # noqa: PT011
        plain_decoder.decode(MALFORMED[name], bundle)


def refused_by_both(data: bytes) -> bool:
    """Whether both refuse a file's frame; that they agree is asserted."""
    refused = []
    for read in (Container.unpack, plain_frame):
        try:
            read(data)
            refused.append(False)
        except (BitstreamError, ValueError):
            refused.append(True)
    assert refused[0] == refused[1], data.hex()
    return refused[0]


def plain_frame(data: bytes) -> None:
    """What the plain decoder checks before it decodes."""
    parts = plain_decoder.parse(data).critical()
    if 4 in parts:
        plain_decoder.Calibration(parts[4], len(parts[3]) // 2 - 1)


def test_as_many_sections_as_the_limit_are_read_by_both() -> None:
    assert not refused_by_both(seal(DATA[:-4] + b"\xc8\x00" * (65536 - 4)))


def test_a_file_cut_anywhere_is_an_error_in_both() -> None:
    assert all(refused_by_both(DATA[:length]) for length in range(len(DATA)))


def test_a_file_cut_anywhere_and_sealed_again_is_an_error_in_both() -> None:
    whole = {len(DATA) - 4, len(DATA) - 4 - len(section(4, CALIBRATION))}
    cut = [length for length in range(len(DATA) - 3) if not refused_by_both(seal(DATA[:length]))]
    assert set(cut) == whole


def test_a_bit_flipped_anywhere_is_an_error_in_both() -> None:
    for bit in range(8 * len(DATA)):
        flipped = bytearray(DATA)
        flipped[bit // 8] ^= 1 << bit % 8
        assert refused_by_both(bytes(flipped))


@pytest.mark.parametrize("name", ["nano-ancillary", "checkerboard-ancillary", "factorised-ancillary"])
def test_both_accept_the_same_files_among_many_that_are_damaged_and_sealed_again(name: str) -> None:
    random = np.random.default_rng(12)
    body = golden_file(name)[:-4]
    refused = 0
    for _ in range(3000):
        damaged = bytearray(body)
        for _ in range(int(random.integers(1, 4))):
            at = int(random.integers(0, len(damaged)))
            kind = random.integers(0, 3)
            damaged[at : at + int(kind != 0)] = random.bytes(int(kind != 1))
        refused += refused_by_both(seal(bytes(damaged)))
    assert 300 < refused < 2900
