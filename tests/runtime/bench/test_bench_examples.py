"""The examples in docstrings of the functions that measure run, and give what they say."""

import doctest

import pytest

import polc_runtime.agreement.measure
import polc_runtime.bench.quality.accuracy
import polc_runtime.bench.quality.rate_distortion
import polc_runtime.bench.speed.latency


@pytest.mark.parametrize(
    "module",
    [
        polc_runtime.agreement.measure,
        polc_runtime.bench.quality.accuracy,
        polc_runtime.bench.quality.rate_distortion,
        polc_runtime.bench.speed.latency,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_give_what_they_say(module):
    failed, attempted = doctest.testmod(module, optionflags=doctest.FAIL_FAST)
    assert attempted > 0 and failed == 0
