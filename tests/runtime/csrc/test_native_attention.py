"""The native attention kernel, through ctypes, against the reference in float64 and golden vectors."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polc.attention import KERNELS, NeighborhoodAttention2d, native, set_attention_kernel
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


def gradients(function, inputs, kernel, scale, seed=1):
    """Gradients of q, k, v and, if there is one, rpb from a random one of the output."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    out = function(*leaves, kernel, scale)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(out.dtype)
    return torch.autograd.grad(out, [t for t in leaves if t is not None], cotangent)


def assert_gradients_right(*inputs, kernel, scale, tolerance=3e-6):
    doubles = [None if t is None else t.double() for t in inputs]
    expected = gradients(na2d_reference, doubles, kernel, scale)
    for ours, theirs in zip(gradients(na2d_native, inputs, kernel, scale), expected, strict=True):
        assert ours.dtype == torch.float32 and ours.is_contiguous()
        limit = tolerance * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours.double(), theirs, atol=limit, rtol=0)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_is_right_at_every_size_and_kernel(size, kernel):
    assert_right(*problem(size, heads=2, dim=16, kernel=kernel), kernel, 0.25)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dim", [1, 8, 16, 20, 24, 32, 64])
def test_is_right_at_every_dim_with_a_bias_and_without(dim, with_bias):
    q, k, v, rpb = problem((9, 37), heads=3, dim=dim, kernel=7, batch=2)
    assert_right(q, k, v, rpb if with_bias else None, 7, dim**-0.5)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 13])
@pytest.mark.parametrize("size", [*SIZES, (8, 8), (64, 10)], ids=str)
def test_gradients_are_right_at_every_size_and_kernel(size, kernel):
    assert_gradients_right(*problem(size, heads=2, dim=16, kernel=kernel), kernel=kernel, scale=0.25)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("dim", [1, 8, 16, 20, 24, 32, 64])
def test_gradients_are_right_at_every_dim_with_a_bias_and_without(dim, with_bias):
    q, k, v, rpb = problem((9, 37), heads=3, dim=dim, kernel=7, batch=2)
    assert_gradients_right(q, k, v, rpb if with_bias else None, kernel=7, scale=dim**-0.5)


@pytest.mark.parametrize("case", [1, 3, 9])
def test_gives_the_golden_gradients(golden, case):
    with np.load(golden / "na2d.npz") as data:
        names = ("q", "k", "v", "rpb", "cot", "gq", "gk", "gv", "grpb")
        *inputs, cotangent, gq, gk, gv, grpb = (torch.from_numpy(data[f"c{case}_{n}"]) for n in names)
        kernel = int(data[f"c{case}_cfg"][5])
    leaves = [t.requires_grad_() for t in inputs]
    out = na2d_native(*leaves, kernel, inputs[0].shape[-1] ** -0.5)
    found = torch.autograd.grad(out, leaves, cotangent)
    for ours, theirs in zip(found, (gq, gk, gv, grpb), strict=True):
        assert (ours - theirs).abs().max() < 2e-5


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


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 2),
    heads=st.integers(1, 3),
    dim=st.sampled_from([2, 8, 16, 24]),
    kernel=st.sampled_from([1, 3, 5, 7, 9, 13]),
    bias=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_gradients_are_right_on_random_problems(size, batch, heads, dim, kernel, bias, seed):
    q, k, v, rpb = problem(size, heads, dim, kernel, seed, batch)
    assert_gradients_right(q, k, v, rpb if bias else None, kernel=kernel, scale=0.3, tolerance=6e-6)


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
    rpb[:, 2, 3] = -1e4
    finite = gradients(na2d_native, (q, k, v, rpb), 3, 0.25)
    rpb[:, 2, 3] = float("-inf")
    for ours, theirs in zip(gradients(na2d_native, (q, k, v, rpb), 3, 0.25), finite, strict=True):
        assert torch.equal(ours, theirs)


def test_a_query_never_sees_a_key_outside_its_window():
    q, k, v, rpb = problem((21, 45), 2, 16, kernel=7)
    clean = na2d_native(q, k, v, rpb, 7, 0.25)
    k[0, 10, 20, 0] = v[0, 10, 20, 1] = float("nan")
    out = na2d_native(q, k, v, rpb, 7, 0.25)
    seeing = torch.zeros(21, 45, dtype=torch.bool)
    seeing[7:14, 17:24] = True
    assert out[0, seeing].isnan().all()
    assert torch.equal(out[0, ~seeing], clean[0, ~seeing])


def test_a_gradient_never_comes_from_a_key_or_query_outside_the_window():
    inputs = problem((21, 45), 2, 16, kernel=7)
    q, k, v, _ = inputs
    clean = gradients(na2d_native, inputs, 7, 0.25)
    q[0, 10, 20, 0] = k[0, 10, 20, 0] = v[0, 10, 20, 0] = float("nan")
    near = torch.zeros(21, 45, dtype=torch.bool)
    near[4:17, 14:27] = True  # keys that some query sees which sees the key at 10, 20
    for ours, before in zip(gradients(na2d_native, inputs, 7, 0.25)[:3], clean, strict=False):
        assert ours[0, 10, 20, 0].isnan().any()
        assert torch.equal(ours[0, ~near], before[0, ~near])


@pytest.mark.parametrize("size", [(64, 96), (50, 33), (8, 8)], ids=str)
def test_the_number_of_threads_changes_no_bit(size):
    arguments = (*problem(size, heads=5, dim=16, kernel=7), 7, 0.25)
    before, outputs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            outputs.append([na2d_native(*arguments), *gradients(na2d_native, arguments[:4], *arguments[4:])])
    finally:
        torch.set_num_threads(before)
    for output in outputs[1:]:
        assert all(torch.equal(ours, first) for ours, first in zip(output, outputs[0], strict=True))


def test_inputs_need_not_be_contiguous():
    inputs = problem((9, 20), 2, 16, kernel=5)
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in inputs]
    assert torch.equal(na2d_native(*turned, 5, 0.25), na2d_native(*inputs, 5, 0.25))
    expected = gradients(na2d_native, inputs, 5, 0.25)
    for ours, theirs in zip(gradients(na2d_native, turned, 5, 0.25), expected, strict=True):
        assert torch.equal(ours, theirs)


def test_the_outputs_gradient_need_not_be_contiguous():
    q, k, v, rpb = problem((9, 20), 2, 16, kernel=5)
    out = na2d_native(q.requires_grad_(), k, v, rpb, 5, 0.25)
    expanded = torch.ones(1, 1, 1, 1, 1).expand(q.shape)
    found = [torch.autograd.grad(out, q, g, retain_graph=True)[0] for g in (expanded, expanded.contiguous())]
    assert torch.equal(*found)


@pytest.mark.parametrize("shape", [(0, 5, 5, 2, 8), (1, 0, 5, 2, 8), (1, 5, 5, 2, 0)], ids=str)
def test_an_empty_input_gives_an_empty_output_and_a_gradient_of_zeros(shape):
    inputs = [*torch.zeros(3, *shape), torch.zeros(2, 5, 5)]
    assert na2d_native(*inputs, 3, 1.0).shape == shape
    *grads, rpb_grad = gradients(na2d_native, inputs, 3, 1.0)
    assert all(grad.shape == shape for grad in grads) and torch.equal(rpb_grad, inputs[3])


def test_gradients_go_where_they_are_asked_for_alone():
    q, k, v, rpb = problem((5, 9), 1, 8, kernel=3)
    rpb.requires_grad_()
    na2d_native(q, k, v, rpb, 3, 1.0).sum().backward()
    assert rpb.grad is not None and q.grad is None
    with torch.no_grad():
        assert not na2d_native(q, k, v, rpb, 3, 1.0).requires_grad


def test_second_derivatives_are_refused():
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    q.requires_grad_()
    with pytest.raises(RuntimeError, match="differentiated once; use the kernel 'reference'"):
        torch.autograd.grad(na2d_native(q, k, v, rpb, 3, 1.0).sum(), q, create_graph=True)


@pytest.mark.parametrize("bias", [True, False])
def test_a_module_trains_under_autocast(bias):
    torch.manual_seed(0)
    module, results = NeighborhoodAttention2d(32, 16, 7, rel_pos_bias=bias), []
    x = torch.randn(2, 13, 9, 32)
    for kernel in ("native", "tiled"):
        set_attention_kernel(module, kernel)
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
        results.append([out.float(), *(p.grad for n, p in module.named_parameters() if n != "k.bias")])
    for ours, theirs in zip(*results, strict=True):  # the softmax does not see k's bias: its gradient is zero
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_auto_and_the_operator_are_native_for_float32_alone():
    inputs = problem((9, 20), 2, 16, kernel=5)
    expected = [na2d_native(*inputs, 5, 0.25), *gradients(na2d_native, inputs, 5, 0.25)]
    doubles = [t.double() for t in inputs]
    for kernel in (KERNELS["auto"], KERNELS["operator"]):
        found = [kernel(*inputs, 5, 0.25), *gradients(kernel, inputs, 5, 0.25)]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
        assert torch.equal(kernel(*doubles, 5, 0.25), KERNELS["tiled"](*doubles, 5, 0.25))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:FutureWarning")
def test_auto_can_be_traced():
    inputs = problem((9, 20), 2, 16, kernel=5)
    traced = torch.jit.trace(lambda *tensors: KERNELS["auto"](*tensors, 5, 0.25), inputs)
    others = problem((9, 20), 2, 16, kernel=5, seed=1)
    torch.testing.assert_close(traced(*others), na2d_native(*others, 5, 0.25), atol=1e-5, rtol=0)


def test_shapes_that_do_not_fit_are_named():
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    with pytest.raises(ValueError, match="one shape"):
        torch.ops.polc.na2d(q, k[:, :4], v, rpb, 3, 1.0)
    with pytest.raises(ValueError, match=r"rpb of shape \(1, 5, 5\), got \(1, 4, 5\)"):
        na2d_native(q, k, v, rpb[:, :4], 3, 1.0)


def test_other_types_and_too_large_kernels_are_named():
    q, k, v, rpb = problem((5, 5), 1, 8, kernel=3)
    with pytest.raises(ValueError, match=r"float32 on the CPU, got torch\.float64 on cpu"):
        na2d_native(q.double(), k.double(), v.double(), None, 3, 1.0)
    with pytest.raises(ValueError, match="up to 255 and dim up to 4096, got 257 and 8"):
        na2d_native(q, k, v, None, 257, 1.0)


def test_without_the_library_the_reason_is_given_and_auto_is_tiled(monkeypatch):
    monkeypatch.setenv("POLC_OP_LIBRARY", "none")
    native.load.cache_clear()
    inputs = problem((5, 5), 1, 8, kernel=3)
    with pytest.raises(
        BackendUnavailable, match="not available: POLC_OP_LIBRARY=none; choose the kernel tiled"
    ):
        na2d_native(*inputs, 3, 1.0)
    for kernel in ("auto", "operator"):
        assert torch.equal(KERNELS[kernel](*inputs, 3, 1.0), KERNELS["tiled"](*inputs, 3, 1.0))


def test_a_library_of_an_older_version_is_not_called(compile_cpp, tmp_path, monkeypatch):
    source, library = tmp_path / "old.cc", tmp_path / "libpolc_ops.so"
    source.write_text('extern "C" const char* polc_ops_isa() { return "baseline"; }')
    compile_cpp(source, "-shared", "-fPIC", "-o", library)
    monkeypatch.setenv("POLC_OP_LIBRARY", str(library))
    native.load.cache_clear()
    with pytest.raises(BackendUnavailable, match="of an older version, without polc_na2d_f32; install again"):
        na2d_native(*problem((5, 5), 1, 8, kernel=3), 3, 1.0)
