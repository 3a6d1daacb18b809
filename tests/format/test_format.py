"""Version 1 of the bitstream is frozen: files and values made once decode to the same symbols for ever.

Each is held against polc and against `plain_decoder`, which knows nothing but the documents.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import plain_decoder
import pytest
from golden_format import FOLDER, golden_file, load_record, polc_symbols, symbol_hash
from plain_encoder import seal

from polc_runtime import Codec
from polc_runtime.bitstream.container import Container
from polc_runtime.errors import CodecMismatchWarning

RECORD = load_record()
NAMES = list(RECORD["files"])


def symbol_hashes(symbols: list[np.ndarray]) -> list[str]:
    return [symbol_hash(part) for part in symbols]


def test_every_golden_file_is_recorded_and_unchanged() -> None:
    found = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.polc")}
    assert found == {name: entry["sha256"] for name, entry in RECORD["files"].items()}


@pytest.mark.parametrize("name", NAMES)
def test_both_read_the_recorded_header_and_sections(name: str) -> None:
    entry, data = RECORD["files"][name], golden_file(name)
    fields = ("fingerprint", "codec_id", "width", "height", "quality")
    plain, container = plain_decoder.parse(data), Container.unpack(data)
    header = container.header
    read = (header.fingerprint.hex(), header.codec_id.hex(), header.width, header.height, header.quality)
    assert read == tuple(getattr(plain, field) for field in fields) == tuple(entry[field] for field in fields)
    assert [[kind, len(content)] for kind, content in plain.sections] == entry["sections"]
    sections = plain.critical()
    packed = container.calibration.pack() if container.calibration else None
    assert (container.z, container.y, packed) == (sections[1], sections[2], sections.get(4))


@pytest.mark.parametrize("name", NAMES)
def test_polc_decodes_the_recorded_symbols(name: str, codec: Codec) -> None:
    symbols, _ = polc_symbols(codec, golden_file(name))
    assert symbol_hashes(symbols) == RECORD["files"][name]["symbols"]


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_decoder_decodes_the_recorded_symbols(name: str, bundle: plain_decoder.Bundle) -> None:
    decoded = plain_decoder.decode(golden_file(name), bundle)
    assert symbol_hashes(decoded.symbols) == RECORD["files"][name]["symbols"]


@pytest.mark.parametrize("name", ["nano-q4.5", "nano-1x1"])
def test_both_make_the_same_latent_and_picture(name: str, codec: Codec, bundle: plain_decoder.Bundle) -> None:
    data = golden_file(name)
    decoded, plain = codec.decode(data), plain_decoder.decode(data, bundle)
    np.testing.assert_allclose(plain.y_hat, decoded.y_hat, atol=1e-4)
    pictures = codec.synthesise(decoded), plain_decoder.picture(plain, bundle)
    assert pictures[0].shape == pictures[1].shape == (plain.container.height, plain.container.width, 3)
    assert np.abs(np.subtract(*pictures, dtype=int)).max() <= 1


class OtherMachine(plain_decoder.Bundle):
    """The bundle, as a machine would see it that computes scales and means differently."""

    def run(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        outputs = super().run(name, **inputs)
        if "scales" in outputs:
            random = np.random.default_rng(outputs["scales"].size)
            error = np.float32(5e-5) * random.uniform(-1, 1, outputs["scales"].shape).astype(np.float32)
            outputs |= {"scales": outputs["scales"] * (1 + error), "means": outputs["means"] + error}
        return outputs


@pytest.fixture(scope="module")
def other_machine(bundle: plain_decoder.Bundle) -> OtherMachine:
    return OtherMachine(bundle.folder)


@pytest.mark.parametrize("name", ["nano-q8", "nano-escapes"])
def test_a_machine_that_computes_otherwise_needs_the_calibration(
    name: str, other_machine: OtherMachine
) -> None:
    data = golden_file(name)
    decoded = plain_decoder.decode(data, other_machine)
    assert symbol_hashes(decoded.symbols) == RECORD["files"][name]["symbols"]
    without = dataclasses.replace(Container.unpack(data), calibration=None)
    with pytest.raises(ValueError, match="differ|ends too soon|words left|digits"):
        plain_decoder.decode(without.pack(), other_machine)


def test_other_codec_weights_are_a_warning_in_both(codec: Codec, bundle: plain_decoder.Bundle) -> None:
    data = bytearray(golden_file("nano-1x1")[:-4])
    data[13] ^= 1
    with pytest.warns(CodecMismatchWarning):
        codec.decode(seal(bytes(data)))
    with pytest.warns(UserWarning, match="other codec weights"):
        plain_decoder.decode(seal(bytes(data)), bundle)
