"""The reach that tiles are cut by is the networks' own: cutting an image changes nothing beyond it."""

import dataclasses

import pytest
import torch
from compressai_models import random_model

from polc import Codec, preset
from polc.families.compressai.architectures import CompressAiConfig
from polc.families.compressai.codec import CompressAiCodec

TINY = preset("polc-tiny")
DEEP = dataclasses.replace(TINY, depths=(2, 2, 6, 2), hyper_depths=(2, 2))
"""Very small, as deep as the full-size model."""
WIDE_WINDOWS = dataclasses.replace(TINY, kernel_size=9, hyper_kernel_size=5)


def random_codec(config):
    """With random weights, so that what differs at all differs by more than rounding."""
    torch.manual_seed(0)
    codec = Codec(config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():
            if "rpb" in name or "gain" in name:
                parameter.normal_(std=0.5)
    return codec


def compressai_codec(name):
    codec = CompressAiCodec(CompressAiConfig(name, 8, 12))
    codec.network = random_model(name, 8, 12)
    return codec.eval()


def run(codec, image, y=None):
    """Latents of an image, and the image of its latent or of another, by name, in float64."""
    graphs = codec.graphs()
    found = {}
    with torch.no_grad():
        for name, inputs in (("analysis", {"image": image}), ("synthesis", {"y_hat": y})):
            inputs |= {"quality": torch.tensor([3.5], dtype=torch.float64)}
            inputs["y_hat"] = found["y"] if y is None and found else y
            outputs = graphs[name].module(*(inputs[each] for each in graphs[name].inputs))
            found |= dict(
                zip(graphs[name].outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True)
            )
    return found


def distances(codec, axis):
    """How far from a cut, in pixels, each output of the part before it and behind it differs."""
    plan = codec.plan
    strides = {"y": plan.latent.stride, "image": 1} | ({"z": plan.hyper.stride} if plan.hyper else {})
    multiple = plan.pad.multiple
    half = -(-(max(plan.reach.y, plan.reach.z, plan.reach.image) + plan.reach.min) // multiple) * multiple
    shape = [1, 3, plan.pad.min, plan.pad.min]
    shape[axis] = 2 * half
    image = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    codec = codec.double()
    whole = run(codec, image)
    found = []
    for start in (0, half):
        y = whole["y"].narrow(axis, start // strides["y"], half // strides["y"])
        part = run(codec, image.narrow(axis, start, half), y)
        farthest = {}
        for name, stride in strides.items():
            same = whole[name].narrow(axis, start // stride, half // stride)
            change = (part[name] - same).abs().amax([i for i in range(4) if i != axis])
            differs = torch.nonzero(change > 1e-9).flatten()
            positions = half // stride - differs.min() if start == 0 else differs.max() + 1
            farthest[name] = int(positions) * stride
        found.append(farthest)
    return found


@pytest.mark.parametrize(
    "codec",
    [random_codec(TINY), *(compressai_codec(name) for name in ("mbt2018-mean", "bmshj2018-factorized"))],
    ids=["polc", "mean-scale", "factorised"],
)
def test_a_cut_changes_what_is_within_the_reach_and_no_more(codec):
    for axis in (2, 3):
        before, behind = distances(codec, axis)
        assert {name: max(before[name], behind[name]) for name in before} == {
            name: getattr(codec.plan.reach, name) for name in before
        }


@pytest.mark.parametrize("config", [DEEP, WIDE_WINDOWS], ids=["deep", "wide windows"])
def test_nothing_changes_beyond_the_reach_of_other_models(config):
    """The farthest influences may be lost in rounding there."""
    codec = random_codec(config)
    reach = codec.plan.reach
    for found in distances(codec, 3):
        assert all(0 < distance <= getattr(reach, name) for name, distance in found.items())
