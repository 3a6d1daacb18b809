"""Coding tables: against compressai's own making, the golden ones, and the rule for keeping stored ones."""

import dataclasses

import numpy as np
import pytest
from compressai._CXX import pmf_to_quantized_cdf
from formula import formula_codec
from hypothesis import given, settings
from hypothesis import strategies as st

from polc import Checkpoint, load_checkpoint, preset
from polc.tables import gaussian_table, largest_difference, quantize_pmf, scale_table
from polc_runtime.bitstream.tables import CdfTable, EntropyTables


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=300).filter(lambda p: sum(p) > 1e-3))
def test_quantised_pmf_equals_compressais(pmf):
    probabilities = np.array(pmf, np.float32) / np.float32(sum(pmf))
    expected = pmf_to_quantized_cdf(probabilities.tolist(), 16)
    assert quantize_pmf(probabilities.astype(np.float64)).tolist() == expected


def test_gaussian_table_follows_compressais_within_two():
    from compressai.entropy_models import GaussianConditional

    theirs = GaussianConditional(scale_table().tolist())
    theirs.update()
    ours = gaussian_table(scale_table())
    other = CdfTable(theirs.quantized_cdf.numpy(), theirs.cdf_length.numpy(), theirs.offset.numpy())
    assert largest_difference(ours, other) <= 2


def test_prior_table_follows_compressais_within_two():
    codec = formula_codec(preset("polc-tiny"))
    codec.prior.update(force=True)
    theirs = CdfTable(
        codec.prior.quantized_cdf.numpy(), codec.prior.cdf_length.numpy(), codec.prior.offset.numpy()
    )
    assert largest_difference(Checkpoint(codec).tables()[0].hyper, theirs) <= 2


def nudged(tables: EntropyTables, by: int) -> EntropyTables:
    cdf = tables.latent.cdf.copy()
    cdf[40, 60] += by
    return dataclasses.replace(tables, latent=CdfTable(cdf, tables.latent.lengths, tables.latent.offsets))


@pytest.mark.parametrize(("by", "kept"), [(0, True), (2, True), (3, False)])
def test_stored_tables_are_kept_within_two(by, kept):
    codec = formula_codec(preset("polc-tiny"))
    fresh, _ = Checkpoint(codec).tables()
    stored = nudged(fresh, by)
    tables, said = Checkpoint(codec, stored).tables()
    assert (tables is stored) == kept
    assert said == (
        f"entropy tables of the checkpoint kept (largest difference {by})"
        if kept
        else "entropy tables made from the weights: the stored ones differ by up to 3"
    )


@pytest.mark.slow
def test_tables_made_anew_follow_the_golden_ones_within_two(official_checkpoint):
    checkpoint = load_checkpoint(official_checkpoint)
    assert checkpoint.stored_tables is not None
    fresh, _ = Checkpoint(checkpoint.codec).tables()
    for name in ("hyper", "latent"):
        difference = largest_difference(getattr(fresh, name), getattr(checkpoint.stored_tables, name))
        assert difference is not None and difference <= 2
    assert checkpoint.tables()[0] is checkpoint.stored_tables
