"""The attention for torch.jit: traced once, right at every size, in bounded memory."""

import pytest
import torch

from polc import na2d


def inputs(batch, height, width, heads=2, dim=4, kernel_size=7):
    generator = torch.Generator().manual_seed(height * 100 + width)
    shape = (batch, height, width, heads, dim)
    rpb = torch.randn(heads, 2 * kernel_size - 1, 2 * kernel_size - 1, generator=generator)
    return *(torch.randn(shape, generator=generator) for _ in range(3)), rpb


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7, 13])
def test_one_trace_serves_every_size(kernel_size):
    def attend(q, k, v, rpb):
        return na2d(q, k, v, rpb, kernel_size, 0.3, "portable")

    traced = torch.jit.trace(attend, inputs(1, 9, 12, kernel_size=kernel_size), check_trace=False)
    for size in [(2, 1, 1), (1, 1, 30), (1, 3, 3), (3, 4, 8), (1, 6, 5), (1, 5, 9), (2, 23, 18), (1, 40, 2)]:
        given = inputs(*size, kernel_size=kernel_size)
        expected = na2d(*given, kernel_size, 0.3, "reference")
        torch.testing.assert_close(traced(*given), expected, atol=1e-5, rtol=0)


def test_the_traced_graph_holds_a_loop_and_plain_operators_alone():
    traced = torch.jit.trace(
        lambda q, k, v, rpb: na2d(q, k, v, rpb, 7, 0.3, "portable"), inputs(1, 9, 12), check_trace=False
    )
    graph = traced.inlined_graph
    assert graph.findNode("prim::Loop", recurse=True) is not None
    assert {node.kind().partition("::")[0] for node in graph.nodes()} == {"aten", "prim"}
