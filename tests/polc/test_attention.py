"""Neighbourhood attention against the golden vectors, a float64 definition, and itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polc import KERNELS, NeighborhoodAttention2d, na2d, set_attention_kernel
from polc.attention import attention_kernel, tiled

CASES = range(14)
WITH_GRADIENTS = (1, 3, 9)
IN_LIBRARIES = ("native", "cuda")  # tests/runtime/csrc tests them
KERNELS_FOR_ANY_TYPE = [name for name in KERNELS if name not in IN_LIBRARIES]
kernels = pytest.mark.parametrize("kernel", KERNELS_FOR_ANY_TYPE)
differentiated_once = pytest.mark.parametrize("kernel", ["auto", "tiled", "operator"])


def by_definition(q, k, v, rpb, kernel_size, scale):
    """Every query and key in Python loops, float64."""
    q, k, v, rpb = (np.asarray(t, np.float64) for t in (q, k, v, rpb))
    batch, height, width, heads, _ = q.shape
    out = np.empty_like(q)
    radius = kernel_size // 2
    for i in range(height):
        top = min(max(i - radius, 0), max(height - kernel_size, 0))
        rows = range(top, min(top + kernel_size, height))
        for j in range(width):
            left = min(max(j - radius, 0), max(width - kernel_size, 0))
            columns = range(left, min(left + kernel_size, width))
            keys = [(r, c) for r in rows for c in columns]
            for b in range(batch):
                for h in range(heads):
                    logits = np.array([
                        scale * q[b, i, j, h] @ k[b, r, c, h]
                        + rpb[h, r - i + kernel_size - 1, c - j + kernel_size - 1]
                        for r, c in keys
                    ])  # fmt: skip
                    weights = np.exp(logits - logits.max())
                    values = np.stack([v[b, r, c, h] for r, c in keys])
                    out[b, i, j, h] = weights @ values / weights.sum()
    return out


@kernels
@pytest.mark.parametrize("case", CASES)
def test_equals_the_official_attention(golden, kernel, case):
    data = np.load(golden / "na2d.npz")
    q, k, v, rpb, expected = (torch.from_numpy(data[f"c{case}_{n}"]) for n in ("q", "k", "v", "rpb", "out"))
    out = na2d(q, k, v, rpb, int(data[f"c{case}_cfg"][5]), kernel=kernel)
    assert (out - expected).abs().max() < 5e-6


@kernels
@pytest.mark.parametrize("case", WITH_GRADIENTS)
def test_has_the_official_gradients(golden, kernel, case):
    data = np.load(golden / "na2d.npz")
    inputs = [torch.from_numpy(data[f"c{case}_{n}"]).requires_grad_() for n in ("q", "k", "v", "rpb")]
    out = na2d(*inputs, int(data[f"c{case}_cfg"][5]), kernel=kernel)
    out.backward(torch.from_numpy(data[f"c{case}_cot"]))
    for tensor, name in zip(inputs, ("gq", "gk", "gv", "grpb"), strict=True):
        assert (tensor.grad - torch.from_numpy(data[f"c{case}_{name}"])).abs().max() < 2e-5, name


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 2), height=st.integers(1, 13), width=st.integers(1, 13), heads=st.integers(1, 3),
    dim=st.sampled_from([1, 4, 8]), kernel_size=st.sampled_from([1, 3, 5, 7, 9]),
    kernel=st.sampled_from(KERNELS_FOR_ANY_TYPE), seed=st.integers(0, 1 << 16),
)  # fmt: skip
def test_equals_its_definition_at_any_size(batch, height, width, heads, dim, kernel_size, kernel, seed):
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, batch, height, width, heads, dim))
    rpb = rng.standard_normal((heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
    out = na2d(*(torch.from_numpy(t) for t in (q, k, v, rpb)), kernel_size, 0.3, kernel=kernel)
    np.testing.assert_allclose(out.numpy(), by_definition(q, k, v, rpb, kernel_size, 0.3), atol=1e-12)


def random_inputs(shape, kernel_size, bias=True, seed=0, dtype=torch.float64):
    """q, k, v [B,H,W,heads,dim] and, if wanted, rpb; all require gradients."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [shape] * 3 + [(shape[3], 2 * kernel_size - 1, 2 * kernel_size - 1)] * bias
    return [torch.randn(s, generator=generator, dtype=dtype, requires_grad=True) for s in shapes]


def result_and_gradients(inputs, kernel_size, kernel):
    """Output and the inputs' gradients from a fixed one of the output."""
    out = na2d(*inputs, *[None] * (4 - len(inputs)), kernel_size, 0.4, kernel=kernel)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return [out, *torch.autograd.grad(out, inputs, cotangent)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3), height=st.integers(1, 21), width=st.integers(1, 21), heads=st.integers(1, 3),
    dim=st.sampled_from([1, 4, 5]), kernel_size=st.sampled_from([1, 3, 5, 7, 9, 13]), bias=st.booleans(),
    kernel=st.sampled_from(["auto", "tiled", "operator"]), chunk=st.sampled_from([1, 5000, 1 << 18]),
    saved=st.sampled_from([0, 1 << 26]), seed=st.integers(0, 1 << 16),
)  # fmt: skip
def test_equals_the_reference_and_its_gradients_at_any_size(
    monkeypatch, batch, height, width, heads, dim, kernel_size, bias, kernel, chunk, saved, seed
):
    monkeypatch.setattr(tiled, "CPU_CHUNK_LOGITS", chunk)
    monkeypatch.setattr(tiled, "SAVED_LOGITS", saved)
    inputs = random_inputs((batch, height, width, heads, dim), kernel_size, bias, seed)
    expected = result_and_gradients(inputs, kernel_size, "reference")
    for ours, theirs in zip(result_and_gradients(inputs, kernel_size, kernel), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("height", "width", "kernel_size", "bias"),
    [(2, 9, 3, True), (1, 5, 7, True), (10, 1, 3, False), (3, 4, 5, True)],
)
@differentiated_once
def test_gradients_are_those_of_finite_differences(kernel, height, width, kernel_size, bias):
    inputs = random_inputs((1, height, width, 1, 2), kernel_size, bias)
    rest = [None] * (not bias)
    assert torch.autograd.gradcheck(lambda *a: na2d(*a, *rest, kernel_size, kernel=kernel), inputs)


@differentiated_once
def test_second_derivatives_are_refused(kernel):
    inputs = random_inputs((1, 5, 5, 1, 2), 3)
    with pytest.raises(RuntimeError, match="differentiated once|no autograd formula"):
        grad = torch.autograd.grad(na2d(*inputs, 3, kernel=kernel).sum(), inputs[0], create_graph=True)[0]
        grad.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_the_reference(dtype):
    inputs = random_inputs((2, 13, 9, 2, 16), 7, dtype=torch.float32)
    halves = [t.detach().to(dtype).requires_grad_() for t in inputs]
    expected = result_and_gradients(inputs, 7, "reference")
    for ours, theirs in zip(result_and_gradients(halves, 7, "tiled"), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@differentiated_once
@pytest.mark.parametrize("bias", [True, False])
def test_module_trains_under_autocast(kernel, bias):
    torch.manual_seed(0)
    module = NeighborhoodAttention2d(32, 16, 7, rel_pos_bias=bias)
    set_attention_kernel(module, kernel)
    x, results = torch.randn(2, 13, 9, 32), []
    for enabled in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = module(x)
            out.float().square().sum().backward()
        results.append([out.float(), *(p.grad for n, p in module.named_parameters() if n != "k.bias")])
    for full, half in zip(*results, strict=True):  # the softmax does not see k's bias: its gradient is zero
        assert (half - full).norm() < 0.03 * full.norm()


@kernels
def test_no_bias_is_a_bias_of_zeros(kernel):
    q, k, v = torch.randn(3, 1, 9, 6, 2, 4, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(2, 5, 5)
    torch.testing.assert_close(na2d(q, k, v, None, 3, kernel=kernel), na2d(q, k, v, zeros, 3, kernel=kernel))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel_size": 4}, "odd kernel_size >= 1, got 4"),
        ({"k": torch.zeros(1, 5, 4, 2, 8)}, "one shape"),
        ({"rpb": torch.zeros(2, 5, 4)}, r"rpb of shape \(2, 5, 5\), got \(2, 5, 4\)"),
        ({"kernel": "fast"}, "there are auto, reference, tiled, native, cuda, operator"),
    ],
)
def test_wrong_arguments_are_named(change, said):
    arguments = {n: torch.zeros(1, 5, 5, 2, 8) for n in "qkv"} | {"rpb": None, "kernel_size": 3} | change
    with pytest.raises(ValueError, match=said):
        na2d(**arguments)


def test_operator_passes_torchs_own_checks():
    q, k, v = torch.randn(3, 1, 5, 6, 2, 4, requires_grad=True).unbind()
    rpb = torch.randn(2, 5, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.polc.na2d.default, (q, k, v, rpb, 3, 0.5))


def test_module_gives_the_same_with_every_kernel():
    module = NeighborhoodAttention2d(16, 8, 5)
    x = torch.randn(1, 7, 11, 16, generator=torch.Generator().manual_seed(0))
    outputs = []
    for kernel in KERNELS_FOR_ANY_TYPE:
        set_attention_kernel(module, kernel)
        outputs.append(module(x))
    for out in outputs[1:]:
        torch.testing.assert_close(out, outputs[0], atol=1e-5, rtol=0)


@pytest.fixture
def doubling(monkeypatch):
    """A kernel that gives twice the attention, so that a result says which kernel ran."""
    tiled = KERNELS["tiled"]
    monkeypatch.setitem(KERNELS, "doubling", lambda *arguments: 2 * tiled(*arguments))
    module = NeighborhoodAttention2d(16, 8, 3)
    set_attention_kernel(module, "tiled")
    torch.nn.init.zeros_(module.proj.bias)
    x = torch.randn(1, 5, 6, 16, generator=torch.Generator().manual_seed(0))
    return lambda: module(x)


def test_a_kernel_chosen_for_a_while_holds_for_that_while_alone(doubling):
    once = doubling()
    with attention_kernel("doubling"):
        torch.testing.assert_close(doubling(), 2 * once)
        with attention_kernel(None):
            assert torch.equal(doubling(), once)
        torch.testing.assert_close(doubling(), 2 * once)
    assert torch.equal(doubling(), once)
    with pytest.raises(KeyError), attention_kernel("doubling"):
        raise KeyError
    assert torch.equal(doubling(), once)


def test_a_kernel_chosen_for_a_while_holds_in_its_thread_alone(doubling):
    once = doubling()
    with ThreadPoolExecutor(1) as pool, attention_kernel("doubling"):
        assert torch.equal(pool.submit(doubling).result(), once)


def test_a_kernel_chosen_for_a_while_must_exist():
    with pytest.raises(ValueError, match="no attention kernel is named 'fast'"), attention_kernel("fast"):
        pass
