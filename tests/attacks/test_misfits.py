"""Bundles whose parts, each sound by itself, do not fit each other: a BundleError, and no file is lost."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from refusals import refused

from polc_runtime import Bundle, Codec
from polc_runtime.bitstream.calibration import LEAST_EXPONENT, Tolerances
from polc_runtime.bundle import find_bundle
from polc_runtime.codec.latent import LatentCoder

PIXELS = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
OF_A_FILE = ("file", "sha256", "inputs", "outputs")


@pytest.fixture(scope="module")
def codec():
    with Codec.load("nano", threads=1) as codec:
        yield codec


@pytest.fixture
def changed(tmp_path):
    """A copy of the packaged bundle whose manifest's document something was done to."""

    def change(edit):
        shutil.copytree(find_bundle("nano"), tmp_path / "nano")
        path = tmp_path / "nano/manifest.json"
        document = json.loads(path.read_text())
        edit(document)
        path.write_text(json.dumps(document))
        return tmp_path / "nano"

    return change


def test_a_latent_of_other_width_than_the_graphs_is_refused(changed):
    def wider(document):
        document["coding"]["latent"]["channels"] += 1
        document["coding"]["steps"][-1]["channels"][1] += 1

    with Codec.load(changed(wider), threads=1) as misfit:
        said = refused(lambda: misfit.compress(PIXELS))
    assert said == "the bundle's graph analysis: y has the shape [1, 160, 12, 12], expected [1, 161, 12, 12]"


def test_a_latent_too_narrow_for_the_coding_steps_is_refused(changed):
    def narrow(document):
        del document["coding"]  # as before format 1.5
        document["model"]["dims"][-1] = 3

    assert "at least 4 channels" in refused(lambda: Codec.load(changed(narrow)))


@pytest.mark.parametrize(
    ("name", "other", "said"),
    [
        ("context_3", "context_8", "graph context_3: scales has the shape"),
        ("synthesis", "hyper_analysis", "graph synthesis takes 'y', where there are y_hat, quality"),
        (
            "hyper_synthesis",
            "hyper_analysis",
            "graph hyper_synthesis takes 'y', where there are z_hat, quality",
        ),
        ("hyper_synthesis", "synthesis", "graph hyper_synthesis takes 'y_hat'"),
    ],
)
def test_a_graph_in_the_place_of_another_is_refused(codec, changed, name, other, said):
    def swap(document):
        graphs = {graph["name"]: graph for graph in document["graphs"]}
        graphs[name].update({key: graphs[other][key] for key in OF_A_FILE})

    data = codec.compress(PIXELS)
    with Codec.load(changed(swap), threads=1) as misfit:
        assert said in refused(lambda: misfit.decompress(data))


def test_tolerances_that_reach_from_one_scale_to_the_next_are_refused_before_a_file_is_lost(codec):
    tables = codec.latent_coder.tables
    scales = np.float32(0.11) * np.float32(1.02) ** np.arange(len(tables.scale_table), dtype=np.float32)
    dense = dataclasses.replace(tables, scale_table=scales)
    tolerances = Tolerances(((1.0, (LEAST_EXPONENT,) * 9),))
    coder = LatentCoder(codec.backend, dense, codec.plan, tolerances)
    y, z = codec.networks.analyse(np.zeros((192, 192, 3), np.uint8), 4.0)
    assert "tolerance of 2^-6 does not fit its scale table" in refused(lambda: coder.encode(y, z, 4.0))
    assert coder.encode(y, z, 4.0, portable=False).calibration is None


def test_the_largest_tolerance_fits_the_usual_table(codec):
    tolerances = Tolerances(((1.0, (LEAST_EXPONENT,) * 9),))
    bundle = Bundle.load("nano")
    manifest = dataclasses.replace(bundle.manifest, tolerances=tolerances)
    loose = Codec(dataclasses.replace(bundle, manifest=manifest), codec.backend)
    data = loose.compress(PIXELS)
    np.testing.assert_array_equal(codec.decompress(data), codec.decompress(codec.compress(PIXELS)))
