from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polc_runtime.bitstream.calibration import Calibration
from polc_runtime.bitstream.container import (
    Container,
    Header,
    join_streams,
    quality_code,
    split_streams,
    symbol_checksum,
)
from polc_runtime.errors import BitstreamError, LimitError, UsageError
from polc_runtime.limits import Limits

HEADER = Header(b"FINGERPR", b"CODC", 768, 512, 1000)
SUMS = tuple(range(65526, 65536))
SMALL = Container(HEADER, b"zzzzzzzz", b"yyyyyyyyyyyy", SUMS)
CALIBRATED = dataclasses.replace(
    SMALL, calibration=Calibration((6, 7, 21, 14, 15, 16, 17, 18, 19), 7, b"bits")
)
FIXED = 27


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def with_header(offset: int, content: bytes) -> bytes:
    body = bytearray(SMALL.pack()[:-4])
    body[offset : offset + len(content)] = content
    return sealed(bytes(body))


def with_sections(*sections: bytes) -> bytes:
    return sealed(SMALL.pack()[:FIXED] + b"".join(sections))


C = b"\x04\x0a\x10\x8f\xa9\xcb\x0d\x07bits"
Z, Y, S = b"\x01\x08zzzzzzzz", b"\x02\x0cyyyyyyyyyyyy", b"\x03\x14" + struct.pack("<10H", *SUMS)


def test_the_bytes_are_those_of_the_specification() -> None:
    """docs/bitstream.md, written out by hand."""
    body = (
        b"POLC\x01" b"FINGERPR" b"CODC"
        + (768).to_bytes(4, "little")
        + (512).to_bytes(4, "little")
        + (1000).to_bytes(2, "little")
        + Z + Y + S
    )  # fmt: skip
    assert SMALL.pack() == body + zlib.crc32(body).to_bytes(4, "little")
    assert Container.unpack(SMALL.pack()) == SMALL
    assert CALIBRATED.pack() == sealed(body + C)
    assert Container.unpack(CALIBRATED.pack()) == CALIBRATED


containers = st.builds(
    Container,
    st.builds(
        Header,
        st.binary(min_size=8, max_size=8),
        st.binary(min_size=4, max_size=4),
        st.integers(1, 4096),
        st.integers(1, 65535),
        st.integers(256, 2048),
    ),
    st.binary(max_size=300),
    st.binary(max_size=20000),
    st.tuples(*[st.integers(0, 65535)] * 10),
    st.none()
    | st.builds(
        Calibration, st.tuples(*[st.integers(6, 21)] * 9), st.integers(0, 255), st.binary(max_size=200)
    ),
)


@given(containers)
@settings(deadline=None)
def test_what_is_packed_comes_back_and_its_sizes_add_up(container: Container) -> None:
    data = container.pack()
    assert Container.unpack(data) == container
    assert sum(container.section_sizes.values()) == len(data)
    calibration = ["calibration"] if container.calibration else []
    assert list(container.section_sizes) == ["header", "z", "y", "checksums", *calibration, "crc"]


WITHOUT_Z = Container(dataclasses.replace(HEADER, quality_code=1), None, b"yy", (0, 7, 8, 9), None, 2)
WITH_Z = Container(
    dataclasses.replace(HEADER, quality_code=65535),
    b"z",
    b"yy",
    (6, 7, 8, 9),
    Calibration((6, 7, 21), 7, b"bits"),
    2,
)


@pytest.mark.parametrize(
    ("container", "quality", "sections"),
    [
        (WITHOUT_Z, b"\x01\x00", b"\x02\x02yy\x03\x08\0\0\x07\0\x08\0\x09\0"),
        (
            WITH_Z,
            b"\xff\xff",
            b"\x01\x01z\x02\x02yy\x03\x08\x06\0\x07\0\x08\0\x09\0\x04\x07\x10\x0f\x07bits",
        ),
    ],
)
def test_the_bytes_of_version_2_are_those_of_the_specification(
    container: Container, quality: bytes, sections: bytes
) -> None:
    body = b"POLC\x02" + SMALL.pack()[5:25] + quality + sections
    assert container.pack() == sealed(body)
    assert Container.unpack(sealed(body)) == container


def version_2(quality: bytes, *sections: bytes) -> bytes:
    return sealed(b"POLC\x02" + SMALL.pack()[5:25] + quality + b"".join(sections))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (version_2(b"\0\0", Z, Y, S), "the file's quality is 0, expected 0.00390625 to 255.996"),
        (version_2(b"\0\1", Z, S), r"section 3 \(checksums\) stands where 2 \(y\) should"),
        (version_2(b"\0\1", Y, Z, S), r"section 1 \(z\) stands where 3 \(checksums\) should"),
        (version_2(b"\0\1", Z), r"no section 2 \(y\)"),
        (version_2(b"\0\1", Z, Y, b"\x03\2\1\1"), "have 2 bytes, expected an even number from 4 to 130"),
        (
            version_2(b"\0\1", Z, Y, b"\x03\5\1\1\1\1\1"),
            "the checksums have 5 bytes, expected an even number",
        ),
        (version_2(b"\0\1", Z, Y, b"\x03\x84\1" + bytes(132)), "the checksums have 132 bytes, expected"),
        (version_2(b"\0\1", Y, S), "without a hyper-latent there is no checksum of one and no calibration"),
        (version_2(b"\0\1", Y, b"\x03\4\0\0\1\1", b"\x04\2\0\0"), "without a hyper-latent there is no check"),
        (version_2(b"\0\1", Z, Y, b"\x03\4\0\0\1\1", b"\x04\1\0"), "has 1 bytes, expected at least 2"),
        (version_2(b"\0\1", Z, Y, b"\x03\4\0\0\1\1", b"\x04\2\x10\0"), "calibration's unused bits are set"),
    ],
)
def test_each_malformation_of_version_2_has_its_own_message(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        Container.unpack(data)


@pytest.mark.parametrize(
    "container",
    [
        dataclasses.replace(SMALL, checksums=SUMS[1:]),
        dataclasses.replace(SMALL, z=None, checksums=(0, *SUMS[1:])),
        dataclasses.replace(WITHOUT_Z, checksums=(1, 7, 8, 9)),
        dataclasses.replace(WITH_Z, z=None, checksums=(0, 7, 8, 9)),
    ],
)
def test_what_no_version_holds_is_not_packed(container: Container) -> None:
    with pytest.raises(BitstreamError):
        container.pack()


def test_quality_follows_from_its_code() -> None:
    assert HEADER.quality == 1000 / 256


@pytest.mark.parametrize(("quality", "code"), [(1, 256), (8, 2048), (3.001, 768), (5.5, 1408), (2.9995, 768)])
def test_quality_is_kept_in_steps_of_1_256(quality: float, code: int) -> None:
    assert quality_code(quality, 1, 8) == code


@pytest.mark.parametrize("quality", [0.9999, 8.0001, -1, float("nan"), float("inf")])
def test_quality_out_of_range_is_the_users_error(quality: float) -> None:
    with pytest.raises(UsageError, match=f"between 1 and 8, got {quality}"):
        quality_code(quality, 1, 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .polc file"),
        (b"\x89PNG\r\n\x1a\n" * 20, "not a .polc file"),
        (b"POLC\x00", "has bitstream version 0, a draft that no released polc reads: encode the image again"),
        (b"POLC\x03", "has bitstream version 3, this polc reads up to 2: use a newer polc"),
        (with_header(4, b"\x07"), "has bitstream version 7"),
        (b"POLC", "truncated: it has 4 bytes"),
        (SMALL.pack()[:30], "truncated: it has 30 bytes"),
        (SMALL.pack()[:-1], r"truncated, or a length in it is damaged: section 3"),
        (SMALL.pack() + b"\0", "damaged or truncated: its CRC-32"),
        (with_header(17, bytes(4)), "an image of 0x512 has no pixels"),
        (with_header(21, bytes(4)), "an image of 768x0 has no pixels"),
        (with_header(17, b"\xff\xff\xff\xff"), "a side may have 65535 pixels"),
        (with_header(17, b"\x00\x00\x01\x00"), "65536x512 is too large"),
        (with_header(17, b"\xff\xff\0\0\xff\xff\0\0"), "4294836225, the limit is 268435456"),
        (with_header(25, b"\xff\x00"), "quality is 0.996094, expected 1 to 8"),
        (with_header(25, b"\x01\x08"), "quality is 8.00391, expected 1 to 8"),
        (with_sections(), r"no section 1 \(z\)"),
        (with_sections(Z, Y), r"no section 3 \(checksums\)"),
        (with_sections(Z, Z, Y, S), r"section 1 \(z\) is there twice"),
        (with_sections(Z, Y, S, S), r"section 3 \(checksums\) is there twice"),
        (with_sections(Y, Z, S), r"section 2 \(y\) stands where 1 \(z\) should"),
        (with_sections(Z, S, Y), r"section 3 \(checksums\) stands where 2 \(y\) should"),
        (with_sections(Z, Y, S, b"\x04\x00"), "the calibration has 0 bytes, expected at least 6"),
        (with_sections(Z, Y, S, b"\x04\x05" + bytes(5)), "the calibration has 5 bytes, expected at least 6"),
        (with_sections(Z, Y, S, b"\x04\x06" + b"\xff" * 6), "the calibration's unused bits are set"),
        (with_sections(Z, Y, S, C, C), r"section 4 \(calibration\) is there twice"),
        (with_sections(Z, C, Y, S), r"section 4 \(calibration\) stands where 2 \(y\) should"),
        (with_sections(Z, b"\x00\x00", Y, S), "section 0 is unknown and may not be skipped"),
        (with_sections(Z, Y, S, b"\x7f\x01x"), "section 127 is unknown and may not be skipped"),
        (with_sections(Z, Y, b"\x03\x13" + bytes(19)), "the checksums have 19 bytes, expected 20"),
        (with_sections(Z, Y, b"\x03\x15" + bytes(20)), r"section 3 \(checksums\) announces 21 bytes, 20 are"),
        (with_sections(Z, Y, S, b"\x80\x05abcd"), "section 128 announces 5 bytes, 4 are left"),
        (
            with_sections(b"\x01\xff\xff\xff\xff\x7f" + bytes(20)),
            r"section 1 \(z\) announces 34359738367 bytes",
        ),
        (with_sections(b"\x01\xff\xff\xff\xff\xff\x01" + bytes(20)), "a length takes more than 5 bytes"),
        (with_sections(b"\x01\x88\x00zzzzzzzz", Y, S), "written with more bytes than it needs"),
        (with_sections(Z, Y, S, b"\x80"), "the file ends within a length"),
        (with_sections(Z, Y, S, b"\x80\x80"), "the file ends within a length"),
    ],
)
def test_each_malformation_has_its_own_message(data: bytes, message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        Container.unpack(data)


def test_ancillary_sections_are_skipped_wherever_they_stand() -> None:
    extra = b"\x80\x03abc"
    data = with_sections(extra, Z, b"\xff\x00", Y, extra, extra, S, extra)
    assert Container.unpack(data) == SMALL


def test_truncation_at_every_byte_is_found() -> None:
    data = SMALL.pack()
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            Container.unpack(data[:size])


def test_every_flipped_bit_is_found() -> None:
    data = SMALL.pack()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            Container.unpack(bytes(flipped))


@given(st.binary(max_size=120))
@settings(deadline=None)
def test_any_sealed_body_is_refused_or_means_exactly_one_file(body: bytes) -> None:
    """An attacker can make the CRC fit, so nothing may rest on it."""
    data = sealed(SMALL.pack()[:FIXED] + body)
    try:
        container = Container.unpack(data)
    except BitstreamError:
        return
    assert Container.unpack(container.pack()) == container


@given(st.integers(0, len(SMALL.pack()) - 5), st.integers(0, 255))
@settings(deadline=None, max_examples=400)
def test_a_changed_and_resealed_byte_is_refused_or_read_as_it_stands(at: int, value: int) -> None:
    body = bytearray(SMALL.pack()[:-4])
    body[at] = value
    try:
        container = Container.unpack(sealed(bytes(body)))
    except BitstreamError:
        return
    assert container.pack() == sealed(bytes(body))


def test_limits_are_the_callers() -> None:
    with pytest.raises(BitstreamError, match="393216, the limit is 1000"):
        Container.unpack(SMALL.pack(), Limits(max_pixels=1000))
    with pytest.raises(BitstreamError, match="has 77 bytes, the limit is 76"):
        Container.unpack(SMALL.pack(), Limits(max_bytes=76))
    with pytest.raises(LimitError, match="would have 77 bytes, the limit is 76"):
        SMALL.pack(Limits(max_bytes=76))
    with pytest.raises(BitstreamError, match="a side may have 700 pixels"):
        SMALL.pack(Limits(max_side=700))


def test_a_header_of_a_huge_image_takes_no_memory() -> None:
    data = with_header(17, struct.pack("<II", 16384, 16384))
    tracemalloc.start()
    Container.unpack(data).y_streams(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": b"short"}, {"codec_id": b"12345"}, {"width": 0}, {"height": 70000}, {"quality_code": 4}],
)
def test_fields_out_of_range_are_not_packed(change: dict[str, object]) -> None:
    with pytest.raises(BitstreamError):
        dataclasses.replace(SMALL, header=dataclasses.replace(HEADER, **change)).pack()


def test_too_few_checksums_are_not_packed() -> None:
    with pytest.raises(BitstreamError, match="holds a hyper-latent and 10 checksums, got 9"):
        dataclasses.replace(SMALL, checksums=SUMS[1:]).pack()


@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_streams_come_back_from_the_y_section(count: int) -> None:
    streams = [bytes([j]) * (97 * j) for j in range(count)]
    assert split_streams(join_streams(streams), count) == streams
    container = dataclasses.replace(SMALL, y=join_streams(streams))
    assert container.y_streams(count * 2**16) == streams


def test_one_stream_has_no_lengths() -> None:
    assert join_streams([b"only"]) == b"only"
    assert join_streams([b"a" * 200, b"b"]) == b"\xc8\x01" + b"a" * 200 + b"b"


def test_streams_longer_than_their_section_are_refused() -> None:
    with pytest.raises(BitstreamError, match="announces streams of 6 bytes, 5 are there"):
        split_streams(b"\x06abcde", 2)
    with pytest.raises(BitstreamError, match="ends within a length"):
        split_streams(b"", 2)


def test_checksums_are_the_low_half_of_a_crc_of_little_endian_words() -> None:
    symbols = np.array([[1, -1], [300, 0]], np.int32)
    expected = zlib.crc32(struct.pack("<4i", 1, -1, 300, 0)) & 0xFFFF
    assert symbol_checksum(symbols) == expected
    assert symbol_checksum(symbols.astype(">i4")) == expected
    assert symbol_checksum(np.asfortranarray(symbols)) == expected
    assert symbol_checksum(np.empty(0, np.int32)) == 0
