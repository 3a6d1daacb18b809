"""Files that version 2 of the bitstream does not allow, or not for their plan: both decoders refuse them."""

from __future__ import annotations

import struct
from typing import Any

import plain_decoder
import pytest
from golden_format import golden_file, load_record
from plain_encoder import encode, join, seal

from polc_runtime import Codec
from polc_runtime.errors import BitstreamError

MEAN_SCALE, CHECKERBOARD, FACTORISED = "mean-scale-odd", "checkerboard-odd", "factorised-odd"
RECORD: dict[str, Any] = load_record()["files"]
EMPTY_STREAM = encode([])


def part(name: str, kind: int) -> bytes:
    return plain_decoder.parse(golden_file(name)).critical()[kind]


def edited(name: str, parts: dict[int, bytes | None] | None = None, **fields: bytes) -> bytes:
    """A golden file with other contents of sections, None for none, and of fields: `at_4` is the version."""
    data = bytearray(golden_file(name))
    sections = plain_decoder.parse(bytes(data)).critical() | (parts or {})
    for field, content in fields.items():
        at = int(field.removeprefix("at_"))
        data[at : at + len(content)] = content
    return join(
        bytes(data[:27]), [(k, content) for k, content in sorted(sections.items()) if content is not None]
    )


def with_quality(name: str, number: int) -> bytes:
    return edited(name, at_25=struct.pack("<H", number))


def with_sum(name: str, index: int) -> bytes:
    """The file with another checksum."""
    sums = bytearray(part(name, 3))
    sums[2 * index] ^= 1
    return edited(name, {3: bytes(sums)})


def of_bundle(name: str, other: str) -> bytes:
    """The file with the identity of another one's bundle."""
    return edited(name, at_5=golden_file(other)[5:17])


MALFORMED: dict[str, tuple[str, bytes, str]] = {
    "version 1": (MEAN_SCALE, edited(MEAN_SCALE, at_4=b"\1"), "damaged"),
    "a file of version 1 for a plan of version 2": (
        CHECKERBOARD,
        of_bundle("nano-1x1", CHECKERBOARD),
        "damaged",
    ),
    "a file of version 2 for a plan of version 1": (
        "nano-1x1",
        of_bundle(CHECKERBOARD, "nano-1x1"),
        "damaged",
    ),
    "a version 1 file marked as of version 2": ("nano-1x1", edited("nano-1x1", at_4=b"\2"), "damaged"),
    "a later version": (MEAN_SCALE, edited(MEAN_SCALE, at_4=b"\3"), "version"),
    "another model": (CHECKERBOARD, of_bundle(CHECKERBOARD, MEAN_SCALE), "wrong_model"),
    "fewer bytes than a header": (FACTORISED, golden_file(FACTORISED)[:30], "truncated"),
    "cut off": (FACTORISED, golden_file(FACTORISED)[:-1], "truncated"),
    "another magic": (FACTORISED, seal(b"POLD" + golden_file(FACTORISED)[4:-4]), "not_polc"),
    "an image over the limit": (FACTORISED, edited(FACTORISED, at_17=struct.pack("<I", 65536)), "limit"),
    "quality 0": (FACTORISED, with_quality(FACTORISED, 0), "damaged"),
    "a quality below the only one": (MEAN_SCALE, with_quality(MEAN_SCALE, 3 * 256 - 1), "damaged"),
    "a quality above the only one": (MEAN_SCALE, with_quality(MEAN_SCALE, 3 * 256 + 1), "damaged"),
    "a quality below the range": (FACTORISED, with_quality(FACTORISED, 127), "damaged"),
    "a quality above the range": (CHECKERBOARD, with_quality(CHECKERBOARD, 12 * 256 + 1), "damaged"),
    "no z": (MEAN_SCALE, edited(MEAN_SCALE, {1: None}), "damaged"),
    "no z and no calibration": (MEAN_SCALE, edited(MEAN_SCALE, {1: None, 4: None}), "damaged"),
    "neither z nor its checksum": (
        MEAN_SCALE,
        edited(MEAN_SCALE, {1: None, 3: b"\0\0" + part(MEAN_SCALE, 3)[2:], 4: None}),
        "damaged",
    ),
    "an empty z": (MEAN_SCALE, edited(MEAN_SCALE, {1: b""}), "damaged"),
    "z without a hyper-latent": (FACTORISED, edited(FACTORISED, {1: EMPTY_STREAM}), "damaged"),
    "an empty z without a hyper-latent": (FACTORISED, edited(FACTORISED, {1: b""}), "damaged"),
    "a checksum of z without a hyper-latent": (FACTORISED, with_sum(FACTORISED, 0), "damaged"),
    "a calibration without a hyper-latent": (FACTORISED, edited(FACTORISED, {4: b"\x55\0"}), "damaged"),
    "no y": (FACTORISED, edited(FACTORISED, {2: None}), "damaged"),
    "no checksums": (FACTORISED, edited(FACTORISED, {3: None}), "damaged"),
    "an unknown section": (FACTORISED, edited(FACTORISED, {5: b""}), "damaged"),
    "checksums of z alone": (MEAN_SCALE, edited(MEAN_SCALE, {3: part(MEAN_SCALE, 3)[:2]}), "damaged"),
    "a checksum too few": (CHECKERBOARD, edited(CHECKERBOARD, {3: part(CHECKERBOARD, 3)[:-2]}), "damaged"),
    "a checksum too many": (
        CHECKERBOARD,
        edited(CHECKERBOARD, {3: part(CHECKERBOARD, 3) + b"\0\0"}),
        "damaged",
    ),
    "half a checksum": (FACTORISED, edited(FACTORISED, {3: part(FACTORISED, 3) + b"\0"}), "damaged"),
    "checksums of 64 steps": (FACTORISED, edited(FACTORISED, {3: bytes(130)}), "damaged"),
    "checksums of 65 steps": (FACTORISED, edited(FACTORISED, {3: bytes(132)}), "damaged"),
    "another checksum of z": (CHECKERBOARD, with_sum(CHECKERBOARD, 0), "damaged"),
    "another checksum of the first step": (CHECKERBOARD, with_sum(CHECKERBOARD, 1), "drift"),
    "another checksum of the last step": (CHECKERBOARD, with_sum(CHECKERBOARD, 5), "drift"),
    "another checksum of a factorised step": (FACTORISED, with_sum(FACTORISED, 2), "drift"),
    "an empty calibration": (MEAN_SCALE, edited(MEAN_SCALE, {4: b""}), "damaged"),
    "a calibration without a seed": (
        CHECKERBOARD,
        edited(CHECKERBOARD, {4: part(CHECKERBOARD, 4)[:3]}),
        "damaged",
    ),
    "an exponent of a second step of one": (MEAN_SCALE, edited(MEAN_SCALE, {4: b"\x15\0"}), "damaged"),
    "an exponent of a sixth step of five": (
        CHECKERBOARD,
        edited(CHECKERBOARD, {4: part(CHECKERBOARD, 4)[:2] + b"\x15" + part(CHECKERBOARD, 4)[3:]}),
        "damaged",
    ),
    "words left in y": (MEAN_SCALE, edited(MEAN_SCALE, {2: part(MEAN_SCALE, 2) + bytes(4)}), "damaged"),
    "y of no symbols": (FACTORISED, edited(FACTORISED, {2: EMPTY_STREAM}), "drift"),
    "an empty y": (FACTORISED, edited(FACTORISED, {2: b""}), "damaged"),
    "an empty first stream of two": (
        "factorised-streams",
        edited("factorised-streams", {2: b"\0" + part("factorised-streams", 2)[1:]}),
        "damaged",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_of_a_plan_is_an_error_in_both(
    name: str, codecs: dict[str, Codec], bundles: dict[str, plain_decoder.Bundle]
) -> None:
    of, data, kind = MALFORMED[name]
    bundle = RECORD[of]["bundle"]
    with pytest.raises(BitstreamError) as caught:
        codecs[bundle].decode(data)
    assert caught.value.kind == kind
    with pytest.raises(ValueError):  # noqa: PT011
        plain_decoder.decode(data, bundles[bundle])


@pytest.mark.parametrize("name", [MEAN_SCALE, CHECKERBOARD, FACTORISED, "nano-1x1"])
def test_a_file_put_together_again_is_the_golden_one(name: str) -> None:
    assert edited(name) == golden_file(name)
