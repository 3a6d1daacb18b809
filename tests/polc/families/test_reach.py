"""The reach that tiles are cut by is the networks' own: cutting an image changes nothing beyond it."""

import dataclasses

import pytest
import torch

from polc import Codec, preset

TINY = preset("polc-tiny")
DEEP = dataclasses.replace(TINY, depths=(2, 2, 6, 2), hyper_depths=(2, 2))
"""Very small, as deep as the full-size model."""
WIDE_WINDOWS = dataclasses.replace(TINY, kernel_size=9, hyper_kernel_size=5)

STRIDES = {"y": 16, "z": 64, "image": 1}
NARROW = 192


def random_codec(config):
    """In float64 with random weights, so that what differs at all differs by more than rounding."""
    torch.manual_seed(0)
    codec = Codec(config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if "rpb" in name or "gain" in name:
                parameter.normal_(std=0.5)
    return codec.double()


def run(codec, image, y=None):
    """Latents of an image, and the image of its latent or of another."""
    quality = torch.tensor([3.5], dtype=torch.float64)
    with torch.no_grad():
        latent, hyper = codec.analyse(image, quality)
        return {"y": latent, "z": hyper, "image": codec.synthesise(latent if y is None else y, quality)}


def distances(codec, axis):
    """How far from a cut, in pixels, each output of the part before it and behind it differs."""
    reach = codec.plan.reach
    half = reach.z + reach.min
    shape = [1, 3, NARROW, NARROW]
    shape[axis] = 2 * half
    image = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = run(codec, image)
    found = []
    for start in (0, half):
        y = whole["y"].narrow(axis, start // 16, half // 16)
        part = run(codec, image.narrow(axis, start, half), y)
        farthest = {}
        for name, stride in STRIDES.items():
            same = whole[name].narrow(axis, start // stride, half // stride)
            change = (part[name] - same).abs().amax([i for i in range(4) if i != axis])
            differs = torch.nonzero(change > 1e-9).flatten()
            positions = half // stride - differs.min() if start == 0 else differs.max() + 1
            farthest[name] = int(positions) * stride
        found.append(farthest)
    return found


def test_a_cut_changes_what_is_within_the_reach_and_no_more():
    codec = random_codec(TINY)
    reach = codec.plan.reach
    for axis in (2, 3):
        before, behind = distances(codec, axis)
        assert {name: max(before[name], behind[name]) for name in STRIDES} == {
            "y": reach.y,
            "z": reach.z,
            "image": reach.image,
        }


@pytest.mark.parametrize("config", [DEEP, WIDE_WINDOWS], ids=["deep", "wide windows"])
def test_nothing_changes_beyond_the_reach_of_other_models(config):
    """The farthest influences may be lost in rounding there."""
    codec = random_codec(config)
    reach = codec.plan.reach
    for found in distances(codec, 3):
        assert all(0 < distance <= getattr(reach, name) for name, distance in found.items())
