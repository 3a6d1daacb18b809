"""FLOPs of graphs against torch's own counter on the PyTorch model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from polc import Codec, preset, set_attention_kernel
from polc_runtime.bench.speed.flops import Flops, graph_flops, padded_grid

GRAPHS = ("analysis", "hyper_synthesis", *(f"context_{index}" for index in range(9)), "synthesis")


@pytest.fixture(scope="module", params=["polc-tiny", "polc-nano", "polc-base"])
def codec(request):
    """A codec whose attention is one operator, which torch's counter does not look into."""
    codec = Codec(preset(request.param)).eval()
    set_attention_kernel(codec, "operator")
    return codec


def inputs(spec, height, width, batch):
    units = {"h": height // 64, "w": width // 64, "batch": batch}

    def side(axis):
        if isinstance(axis, int) or axis in units:
            return units.get(axis, axis)
        count, _, unit = axis.partition("*")
        return int(count) * units[unit]

    shapes = {name: [side(axis) for axis in axes] for name, axes in spec.inputs.items()}
    return {name: torch.full(shape, 2.0, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("height", "width", "batch"), [(192, 256, 1), (512, 768, 2)])
def test_matrix_work_is_what_torch_counts(codec, graph, height, width, batch):
    spec = codec.to("meta").graphs()[graph]
    feeds = inputs(spec, height, width, batch)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        spec.module(*feeds.values())
    found = graph_flops(codec.config.to_dict(), graph, height, width, batch)
    assert found.gemm == counter.get_total_flops() > 0


def test_attention_is_two_products_with_each_neighbour():
    config = preset("polc-tiny")
    found = graph_flops(config.to_dict(), "synthesis", 192, 192)
    neighbours = [7 * 7, 7 * 7, 7 * 7, 7 * 7]
    pixels = [12 * 12, 24 * 24, 48 * 48, 96 * 96]
    expected = sum(
        2 * 2 * n * p * dim for n, p, dim in zip(neighbours, pixels, reversed(config.dims), strict=True)
    )
    assert found.attention == expected


def test_attention_on_a_small_map_sees_all_of_it():
    config = preset("polc-tiny").to_dict() | {"hyper_kernel_size": 5}
    found = graph_flops(config, "hyper_synthesis", 192, 192)
    assert found.attention == 2 * 2 * 16 * (3 * 3 * 3 * 3 + 6 * 6 * 5 * 5)


def test_what_is_not_known_has_no_number():
    model = preset("polc-tiny").to_dict()
    assert graph_flops(model, "task_pets", 192, 192) is None
    assert graph_flops(model, "pixels_pets", 192, 192) is None
    assert graph_flops({"dims": [16, 16, 16, 32]}, "analysis", 192, 192) is None


@pytest.mark.parametrize(
    ("inputs", "grid"),
    [
        ({"image": (1, 3, 512, 768), "quality": (1,)}, (512, 768)),
        ({"params": (1, 640, 32, 48), "y_hat": (1, 320, 32, 48)}, (512, 768)),
        ({"z_hat": (1, 192, 8, 12), "quality": (1,)}, (512, 768)),
        ({"quality": (1,)}, None),
    ],
)
def test_grid_is_read_from_the_inputs(inputs, grid):
    assert padded_grid(inputs) == grid


def test_flops_add_up():
    assert Flops(1, 2) + Flops(3, 4) == Flops(4, 6)
