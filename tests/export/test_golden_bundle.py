"""The full-size codec, exported and run by ONNX Runtime, against the official model's golden vectors."""

import pytest
from golden_checks import ALL, CASES, Case

from polc_runtime import Codec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def codec(official_bundle):
    with Codec.load(official_bundle) as codec:
        yield codec


@pytest.mark.parametrize("check", ALL)
@pytest.mark.parametrize("name", CASES)
def test_bundle_gives_the_golden_values(golden, codec, name, check):
    check(codec.backend, codec.latent_coder.tables, Case(golden, name))


def test_streams_made_with_either_tables_decode_with_the_same(golden, official_checkpoint, codec):
    """Golden tables and tables made anew differ, but each decodes what it encoded."""
    from polc import Checkpoint, load_checkpoint
    from polc_runtime.latent import LatentCoder

    case = Case(golden, "kodim05_q3")
    fresh = Checkpoint(load_checkpoint(official_checkpoint).codec).tables()[0]
    strings = []
    for tables in (codec.latent_coder.tables, fresh):
        coder = LatentCoder(codec.backend, tables, 320)
        coded = coder.encode(case["y"][0], case["z"][0], case.quality)
        decoded = coder.decode(coded.z, coded.y, coded.checksums, case["y_hat"].shape[2:], case.quality)
        assert (decoded == coded.y_hat).all()
        strings.append(coded.y)
    assert strings[0] != strings[1]
