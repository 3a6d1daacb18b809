"""The golden files' bundles, as polc and as the plain decoder read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import plain_decoder
import pytest
from golden_format import BUNDLE, BUNDLES, plain_bundle

from polc_runtime import Codec


@pytest.fixture(scope="session")
def codecs() -> Iterator[dict[str, Codec]]:
    """By the bundle's name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(Codec.load(path, threads=1)) for name, path in BUNDLES.items()}


@pytest.fixture(scope="session")
def bundles(codecs: dict[str, Codec]) -> dict[str, plain_decoder.Bundle]:
    """By name."""
    return {name: plain_bundle(codec) for name, codec in codecs.items()}


@pytest.fixture(scope="session")
def codec(codecs: dict[str, Codec]) -> Codec:
    return codecs[BUNDLE]


@pytest.fixture(scope="session")
def bundle(bundles: dict[str, plain_decoder.Bundle]) -> plain_decoder.Bundle:
    return bundles[BUNDLE]
