"""The bitstream's versions are frozen: files and values made once decode to the same symbols for ever.

Each is held against polc and against `plain_decoder`, which knows nothing but the documents.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import plain_decoder
import pytest
from golden_format import FOLDER, golden_file, load_record, polc_symbols, sampled, symbol_hash
from plain_encoder import seal

from polc_runtime import Codec
from polc_runtime.bitstream.container import Container
from polc_runtime.bitstream.plan import Quality
from polc_runtime.errors import CodecMismatchWarning

Bundles = dict[str, plain_decoder.Bundle]
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
    fields = ("version", "fingerprint", "codec_id", "width", "height", "quality")
    plain, container = plain_decoder.parse(data), Container.unpack(data)
    header = container.header
    names = header.fingerprint.hex(), header.codec_id.hex()
    read = (container.version, *names, header.width, header.height, header.quality)
    assert read == tuple(getattr(plain, field) for field in fields) == tuple(entry[field] for field in fields)
    assert [[kind, len(content)] for kind, content in plain.sections] == entry["sections"]
    sections = plain.critical()
    packed = container.calibration.pack() if container.calibration else None
    assert (container.z, container.y, packed) == (sections.get(1), sections[2], sections.get(4))


def within_one_level(picture: np.ndarray, pixels: list[list[int]]) -> bool:
    """Whether a picture has the recorded pixels, each within one level."""
    return np.abs(np.subtract(sampled(picture), pixels)).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_polc_decodes_the_recorded_symbols_and_pixels(name: str, codecs: dict[str, Codec]) -> None:
    entry, data = RECORD["files"][name], golden_file(name)
    codec = codecs[entry["bundle"]]
    symbols, _ = polc_symbols(codec, data)
    assert symbol_hashes(symbols) == entry["symbols"]
    assert within_one_level(codec.decompress(data), entry["pixels"])


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_decoder_decodes_the_recorded_symbols_and_pixels(name: str, bundles: Bundles) -> None:
    entry, bundle = RECORD["files"][name], bundles[RECORD["files"][name]["bundle"]]
    decoded = plain_decoder.decode(golden_file(name), bundle)
    assert symbol_hashes(decoded.symbols) == entry["symbols"]
    assert within_one_level(plain_decoder.picture(decoded, bundle), entry["pixels"])


@pytest.mark.parametrize(
    "name", ["nano-q4.5", "nano-1x1", "mean-scale-odd", "checkerboard-odd", "factorised-odd"]
)
def test_both_make_the_same_latent_and_picture(name: str, codecs: dict[str, Codec], bundles: Bundles) -> None:
    data, of = golden_file(name), RECORD["files"][name]["bundle"]
    codec, bundle = codecs[of], bundles[of]
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
            outputs["scales"] *= 1 + error
            if "means" in outputs:
                outputs["means"] += error
        return outputs


@pytest.mark.parametrize("name", ["nano-q8", "nano-escapes", "mean-scale-odd", "checkerboard-odd"])
def test_a_machine_that_computes_otherwise_needs_the_calibration(name: str, bundles: Bundles) -> None:
    data = golden_file(name)
    other_machine = OtherMachine(bundles[RECORD["files"][name]["bundle"]].folder)
    decoded = plain_decoder.decode(data, other_machine)
    assert symbol_hashes(decoded.symbols) == RECORD["files"][name]["symbols"]
    without = dataclasses.replace(Container.unpack(data), calibration=None)
    with pytest.raises(ValueError, match="differ|ends too soon|words left|digits"):
        plain_decoder.decode(without.pack(), other_machine)


def test_version_1_files_of_qualities_that_their_model_no_longer_offers_decode(codec: Codec) -> None:
    manifest = codec.bundle.manifest
    plan = dataclasses.replace(manifest.plan, quality=Quality(2.0, 3.0, 2.0))
    narrower = dataclasses.replace(codec.bundle, manifest=dataclasses.replace(manifest, plan=plan))
    data = golden_file("nano-1x1")
    np.testing.assert_array_equal(Codec(narrower, codec.backend).latent(data), codec.latent(data))


def test_other_codec_weights_are_a_warning_in_both(codec: Codec, bundle: plain_decoder.Bundle) -> None:
    data = bytearray(golden_file("nano-1x1")[:-4])
    data[13] ^= 1
    with pytest.warns(CodecMismatchWarning):
        codec.decode(seal(bytes(data)))
    with pytest.warns(UserWarning, match="other codec weights"):
        plain_decoder.decode(seal(bytes(data)), bundle)
