"""TinyLIC, from an official checkpoint, in PyTorch and as a bundle, against its golden vectors."""

import json

import numpy as np
import pytest
import torch
from formula import formula_tensor
from golden_checks import BOUNDARY, PLAN, assert_close

from polc import load_checkpoint
from polc.backends.torch import TorchBackend
from polc_export import ExportOptions, export_bundle
from polc_runtime import Codec
from polc_runtime.bitstream.container import Container, Header, join_streams, quality_code, symbol_checksum
from polc_runtime.bitstream.schedule import gather, scatter
from polc_runtime.pictures.images import read_image, to_tensor

pytestmark = pytest.mark.slow

PREFIX = "polc-public2:"
QUALITY = 4.0
LEVEL = np.array([QUALITY], np.float32)


@pytest.fixture(scope="module")
def path(golden2, tmp_path_factory):
    """The model with formula weights and golden tables, as its authors' code saves it: a raw state dict."""
    keys = json.loads((golden2 / "state_keys.json").read_text())["TinyLIC"]
    values = {key: formula_tensor(key, shape, PREFIX) for key, (shape, *_) in keys.items()}
    state = {key: torch.from_numpy(value) for key, value in values.items() if value is not None}
    tables = np.load(golden2 / "entropy_tables_na.npz")
    for prefix, short in (("entropy_bottleneck", "eb"), ("gaussian_conditional", "gc")):
        for name in ("quantized_cdf", "offset", "cdf_length"):
            state[f"{prefix}._{name}"] = torch.from_numpy(tables[f"{short}_{name}"])
    state["gaussian_conditional.scale_table"] = torch.from_numpy(tables["gc_scale_table"])
    path = tmp_path_factory.mktemp("tinylic") / "tinylic.pth.tar"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def bundle(path):
    return export_bundle(path, options=ExportOptions(validate=False)).bundle


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def codec(request, path, bundle):
    backend = TorchBackend(load_checkpoint(path).codec) if request.param == "torch" else request.param
    with Codec(bundle, backend) as codec:
        yield codec


@pytest.fixture(scope="module")
def case(golden2):
    return dict(np.load(golden2 / "tinylic_k05a.npz"))


def parts(case):
    """Where each step's symbols lie among all."""
    ends = np.cumsum(case["step_sizes"])
    return [slice(end - size, end) for end, size in zip(ends, case["step_sizes"], strict=True)]


def header(codec):
    code = quality_code(QUALITY, *codec.bundle.manifest.quality_range)
    return Header(bytes(8), bytes(4), 256, 256, code)


def test_weights_are_the_golden_ones(golden2, path):
    checks = json.loads((golden2 / "weight_checks.json").read_text())["na"]
    counts = json.loads((golden2 / "param_counts.json").read_text())["TinyLIC"]
    model = load_checkpoint(path).codec
    assert sum(p.numel() for p in model.parameters()) == counts["total"]
    state = torch.load(path, weights_only=True)
    for name in model.official_weights():
        shape, first, _, squares = checks[name]
        assert list(state[name].shape) == shape
        assert float(state[name].double().square().sum()) == pytest.approx(squares, rel=1e-7)
        np.testing.assert_allclose(state[name].flatten()[:3], first, rtol=1e-7)


def test_the_bundle_states_one_quality_and_its_graphs_take_none(bundle):
    assert bundle.manifest.plan.fits_version_1 and bundle.manifest.quality_range == (QUALITY, QUALITY)
    assert bundle.manifest.plan.steps == PLAN.steps
    assert not any("quality" in graph.inputs for graph in bundle.manifest.graphs)


def test_latents_and_images_are_the_golden_ones(golden2, codec, case):
    image = to_tensor(read_image(golden2 / "k05a.png").pixels)
    found = codec.backend.run("analysis", {"image": image, "quality": LEVEL})
    assert_close(found["y"], case["y"], "y")
    assert_close(found["z"], case["z"], "z")
    medians = codec.latent_coder.tables.medians[:, None, None]
    assert_close(case["z_symbols"] + medians, case["z_hat"], "z_hat")
    np.testing.assert_array_equal(np.rint(case["z"][0] - medians), case["z_symbols"][0])
    params = codec.backend.run("hyper_synthesis", {"z_hat": case["z_hat"], "quality": LEVEL})["params"]
    assert_close(params[:, ::2], case["params_c2"], "params")
    picture = codec.backend.run("synthesis", {"y_hat": case["y_hat"], "quality": LEVEL})["image"]
    assert_close(picture[..., ::3, ::3], case["x_hat_raw_s3"].clip(0, 1), "x_hat")
    assert_close(picture[..., -32:, -32:], case["x_hat_raw_end"].clip(0, 1), "the end of x_hat")


def test_steps_give_the_golden_symbols_and_table_rows(codec, case):
    tables = codec.latent_coder.tables
    feeds = codec.backend.run("hyper_synthesis", {"z_hat": case["z_hat"], "quality": LEVEL})
    known = np.zeros_like(case["y_hat"])
    for step, part in zip(codec.plan.steps, parts(case), strict=True):
        outputs = codec.backend.run(step.graph, {**feeds, "y_hat": known})
        scales, means = outputs.pop("scales").ravel(), outputs.pop("means").ravel()
        feeds |= outputs
        values = gather(case["y"][0], step).ravel() - means
        wrong = np.rint(values) != case["symbols"][part]
        assert (np.abs(np.abs(values - np.floor(values)) - 0.5)[wrong] < BOUNDARY).all()
        wrong = tables.indexes(scales) != case["indexes"][part]
        nearest = np.abs(scales[wrong, None] / tables.scale_table - 1).min(1, initial=np.inf)
        assert (nearest < BOUNDARY).all()
        scatter(known[0], step, gather(case["y_hat"][0], step))


def test_strings_are_the_golden_ones_and_decode_to_the_golden_latent(codec, case):
    coder = codec.latent_coder
    coded = coder.encode(case["y"][0], case["z"][0], QUALITY)
    assert coded.z == case["z_string"].tobytes() and coded.y == [case["y_string"].tobytes()]
    sums = [symbol_checksum(case["symbols"][part]) for part in parts(case)]
    checksums = (symbol_checksum(case["z_symbols"]), *sums)
    y = join_streams([case["y_string"].tobytes()])
    y_hat = coder.decode(Container(header(codec), case["z_string"].tobytes(), y, checksums))
    assert_close(y_hat[None], case["y_hat"], "y_hat")
