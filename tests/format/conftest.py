"""The packaged bundle, as polc and as the plain decoder read it."""

from __future__ import annotations

from collections.abc import Iterator

import plain_decoder
import pytest
from golden_format import BUNDLE, plain_bundle

from polc_runtime import Codec


@pytest.fixture(scope="session")
def codec() -> Iterator[Codec]:
    with Codec.load(BUNDLE, threads=1) as codec:
        yield codec


@pytest.fixture(scope="session")
def bundle(codec: Codec) -> plain_decoder.Bundle:
    return plain_bundle(codec)
