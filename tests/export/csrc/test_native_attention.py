"""The native attention kernel, through ctypes, against the reference in float64 and golden vectors."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polc.attention.native import na2d_native
from polc.attention.reference import na2d_reference
from polc_runtime.errors import BackendUnavailable

SIZES = [(1, 1), (1, 40), (33, 1), (2, 3), (3, 3), (5, 16), (6, 17), (7, 31), (13, 48), (26, 70)]
pytestmark = pytest.mark.usefixtures("op_library")


def problem(size, heads, dim, kernel, seed=0, batch=1):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, *size, heads, dim, generator=generator)
    rpb = torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1, generator=generator)
    return q, k, v, rpb


def exact(q, k, v, rpb, kernel, scale):
    doubles = [None if t is None else t.double() for t in (q, k, v, rpb)]
    return na2d_reference(*doubles, kernel, scale)


def assert_right(q, k, v, rpb, kernel, scale, atol=3e-6):
    out, expected = na2d_native(q, k, v, rpb, kernel, scale), exact(q, k, v, rpb, kernel, scale)
    assert out.dtype == torch.float32 and out.shape == q.shape
    torch.testing.assert_close(out.double(), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_is_right_at_every_size_and_kernel(size, kernel):
    assert_right(*problem(size, heads=2, dim=16, kernel=kernel), kernel, 0.25)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dim", [1, 8, 16, 20, 24, 32, 64])
def test_is_right_at_every_dim_with_a_bias_and_without(dim, with_bias):
    q, k, v, rpb = problem((9, 37), heads=3, dim=dim, kernel=7, batch=2)
    assert_right(q, k, v, rpb if with_bias else None, 7, dim**-0.5)


@pytest.mark.parametrize("case", range(14))
def test_gives_the_golden_output(golden, case):
    with np.load(golden / "na2d.npz") as data:
        q, k, v, rpb, out = (torch.from_numpy(data[f"c{case}_{n}"]) for n in ("q", "k", "v", "rpb", "out"))
        kernel = int(data[f"c{case}_cfg"][5])
    assert (na2d_native(q, k, v, rpb, kernel, q.shape[-1] ** -0.5) - out).abs().max() < 5e-6


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 50)),
    batch=st.integers(1, 2),
    heads=st.integers(1, 9),
    dim=st.sampled_from([2, 8, 16, 24]),
    kernel=st.sampled_from([1, 3, 5, 7, 9, 13]),
    seed=st.integers(0, 1 << 16),
)
def test_is_right_on_random_problems(size, batch, heads, dim, kernel, seed):
    assert_right(*problem(size, heads, dim, kernel, seed, batch), kernel, 0.3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    kernel=st.sampled_from([3, 7]),
    extreme=st.sampled_from([-80.0, 80.0, -300.0, 300.0]),
    seed=st.integers(0, 1 << 16),
)
def test_is_right_with_extreme_logits(size, kernel, extreme, seed):
    q, k, v, rpb = problem(size, 2, 16, kernel, seed)
    chosen = torch.rand(rpb.shape, generator=torch.Generator().manual_seed(seed)) < 0.3
    rpb = torch.where(chosen, torch.tensor(extreme), rpb)
    assert_right(q, k, v, rpb, kernel, 0.25, atol=1e-6 * abs(extreme))


@pytest.mark.parametrize("dim", [8, 16])
def test_denormal_inputs_keep_their_precision(dim):
    q, k, v, rpb = problem((8, 40), 2, dim, kernel=5)
    assert_right(q, k, v * 1e-40, rpb, 5, 0.25, atol=1e-43)
    assert_right(q * 1e-41, k * 1e-41, v, rpb, 5, 0.25)
    assert_right(q, k, v, rpb * 1e-41, 5, 0.25)


def test_a_bias_of_minus_infinity_hides_a_key_altogether():
    q, k, v, rpb = problem((6, 40), 1, 16, kernel=3)
    rpb[:, 2, 3] = float("-inf")  # of the key one to the right in the query's row
    v[0, 3, 20] = 1e30
    beside = na2d_native(q, k, v, rpb, 3, 0.25)[0, 3, 19]
    v[0, 3, 20] = 0.0
    assert torch.equal(beside, na2d_native(q, k, v, rpb, 3, 0.25)[0, 3, 19])


def test_a_query_never_sees_a_key_outside_its_window():
    q, k, v, rpb = problem((21, 45), 2, 16, kernel=7)
    clean = na2d_native(q, k, v, rpb, 7, 0.25)
    k[0, 10, 20, 0] = v[0, 10, 20, 1] = float("nan")
    out = na2d_native(q, k, v, rpb, 7, 0.25)
    seeing = torch.zeros(21, 45, dtype=torch.bool)
    seeing[7:14, 17:24] = True
    assert out[0, seeing].isnan().all()
    assert torch.equal(out[0, ~seeing], clean[0, ~seeing])


@pytest.mark.parametrize("size", [(64, 96), (50, 33)], ids=str)
def test_the_number_of_threads_changes_no_bit(size):
    arguments = (*problem(size, heads=5, dim=16, kernel=7), 7, 0.25)
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            outputs.append(na2d_native(*arguments))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out, outputs[0]) for out in outputs[1:])


def test_inputs_need_not_be_contiguous():
    q, k, v, rpb = problem((9, 20), 2, 16, kernel=5)
    expected = na2d_native(q, k, v, rpb, 5, 0.25)
    turned = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    assert torch.equal(
        na2d_native(*turned, rpb.transpose(1, 2).contiguous().transpose(1, 2), 5, 0.25), expected
    )


def test_an_empty_input_gives_an_empty_output():
    q = torch.zeros(0, 5, 5, 2, 8)
    assert na2d_native(q, q, q, None, 3, 1.0).shape == q.shape


def test_a_gradient_is_refused_and_none_is_needed_without():
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    rpb.requires_grad_()
    with pytest.raises(RuntimeError, match=r"no gradient.*no_grad\(\)"):
        na2d_native(q, k, v, rpb, 3, 1.0)
    with torch.no_grad():
        assert not na2d_native(q, k, v, rpb, 3, 1.0).requires_grad


def test_other_types_and_too_large_kernels_are_named():
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch\.float64 on cpu"):
        na2d_native(q.double(), k.double(), v.double(), None, 3, 1.0)
    with pytest.raises(ValueError, match="up to 255 and dim up to 4096, got 257 and 8"):
        na2d_native(q, k, v, None, 257, 1.0)


def test_without_the_library_the_reason_is_given(monkeypatch):
    from polc.attention import native

    monkeypatch.setenv("POLC_OP_LIBRARY", "none")
    native.load.cache_clear()
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    with pytest.raises(
        BackendUnavailable, match="not available: POLC_OP_LIBRARY=none; choose the kernel tiled"
    ):
        na2d_native(q, k, v, rpb, 3, 1.0)
