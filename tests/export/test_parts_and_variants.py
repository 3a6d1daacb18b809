"""Bundles with other image networks, and parts of bundles: what they hold, do and refuse."""

import json
import re

import numpy as np
import pytest
import torch
from formula import formula_codec
from PIL import Image

from polc import CheckpointError, codec_id, load_checkpoint, preset, save_checkpoint
from polc.backends.torch import load_backend
from polc_export import ExportOptions, Formats, VariantSource, export_bundle, extend_bundle
from polc_export.checks import sample_photo
from polc_export.cli import main as export
from polc_runtime import Bundle, BundleError, Codec, UsageError
from polc_runtime.backends import BackendOptions
from polc_runtime.cli import main as polc

ENTROPY = {"hyper_synthesis", *(f"context_{index}" for index in range(9))}


def changed_codec(*parts):
    """The very small codec with other weights in some transforms."""
    codec, other = formula_codec(preset("polc-tiny")), formula_codec(preset("polc-tiny"), prefix="other:")
    for part in parts:
        getattr(codec, part).load_state_dict(getattr(other, part).state_dict())
    return codec


@pytest.fixture(scope="module")
def variant_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("variant") / "light.safetensors"
    save_checkpoint(path, changed_codec("g_a", "g_s"))
    return path


@pytest.fixture(scope="module")
def with_variant(tiny_bundle, variant_checkpoint, tmp_path_factory):
    """The tiny bundle with the variant `light`, and the checks of its export."""
    out = tmp_path_factory.mktemp("variant") / "two.bundle"
    result = export_bundle(bundle=tiny_bundle, out=out, variants=[VariantSource("light", variant_checkpoint)])
    return result.bundle, result.checks


def photo(height=96, width=130):
    return sample_photo()[100 : 100 + height, 150 : 150 + width]


def names(bundle):
    return {graph.name for graph in bundle.manifest.graphs}


def test_a_variant_adds_its_image_networks_and_is_validated(with_variant, tiny_bundle, variant_checkpoint):
    bundle, checks = with_variant
    before = Bundle.load(tiny_bundle)
    assert names(bundle) - names(before) == {"analysis_light", "synthesis_light"}
    (variant,) = bundle.manifest.variants
    assert variant.codec_id == codec_id(load_checkpoint(variant_checkpoint).codec)
    assert bundle.manifest.fingerprint == before.manifest.fingerprint
    assert bundle.manifest.plan.macs.keys() == before.manifest.plan.macs.keys() | {
        "analysis_light",
        "synthesis_light",
    }
    found = {check.name for check in checks}
    for name in ("analysis_light.y", "synthesis_light.image", "hyper_analysis.z", "context_8.scales"):
        assert f"variant light: {name}" in found
    assert "variant light: decoded pixels that differ from the encoder's" in found


def test_one_file_is_drawn_by_either(with_variant, tiny_bundle, variant_checkpoint, tmp_path):
    bundle, _ = with_variant
    with Codec(bundle) as codec, Codec.load(tiny_bundle) as plain:
        data = codec.compress(photo(), variant="light")
        assert data != codec.compress(photo())
        light, own = codec.decompress(data), codec.decompress(data, variant="tiny")
        with pytest.warns(UserWarning, match="another synthesis"):
            np.testing.assert_array_equal(plain.decompress(data), own)
        assert (light != own).mean() > 0.5
        expected = export_bundle(variant_checkpoint, tmp_path / "b", ExportOptions(validate=False)).bundle
        with Codec(expected) as alone:
            np.testing.assert_array_equal(alone.decompress(data), light)


def test_the_torch_backend_runs_a_variant_from_its_checkpoint(with_variant, variant_checkpoint):
    bundle, _ = with_variant
    backend = load_backend(bundle, BackendOptions(checkpoint=variant_checkpoint))
    with Codec(bundle, backend) as theirs, Codec(bundle) as ours:
        data = ours.compress(photo(), variant="light")
        apart = theirs.decompress(data).astype(int) - ours.decompress(data)
        assert np.abs(apart).max() <= 1
        with pytest.raises(CheckpointError, match="no graph analysis; it has analysis_light"):
            theirs.compress(photo())


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("h_s", r"these differ: weights of the entropy model \(InverseHyperGain, h_s"),
        ("context", "these differ: weights of the entropy model"),
        ("prior", "these differ: the tables of the hyper"),
    ],
)
def test_another_entropy_path_is_refused_with_what_differs(tiny_bundle, tmp_path, part, said):
    save_checkpoint(tmp_path / "a.safetensors", changed_codec("g_s", part))
    with pytest.raises(CheckpointError, match=rf"a\.safetensors: its entropy path is not .*{said}"):
        export_bundle(
            bundle=tiny_bundle, out=tmp_path / "x", variants=[VariantSource("a", tmp_path / "a.safetensors")]
        )
    assert not (tmp_path / "x").exists()


def test_another_plan_is_refused_by_its_name(tiny_bundle, tmp_path):
    config = preset("polc-tiny")
    other = type(config).from_dict(config.to_dict() | {"dims": [16, 16, 16, 40]})
    save_checkpoint(tmp_path / "a.safetensors", formula_codec(other))
    with pytest.raises(CheckpointError, match="latent of the coding plan, steps of the coding plan"):
        export_bundle(
            bundle=tiny_bundle, out=tmp_path / "x", variants=[VariantSource("a", tmp_path / "a.safetensors")]
        )


def test_a_variant_with_another_hyper_analysis_fails_the_validation(tiny_bundle, tmp_path, capsys):
    """The bundle has one for all, which large images take."""
    save_checkpoint(tmp_path / "a.safetensors", changed_codec("h_a"))
    arguments = [
        "--bundle",
        tiny_bundle,
        "--out",
        tmp_path / "x",
        "--variant",
        f"a={tmp_path / 'a.safetensors'}",
    ]
    assert export([*map(str, arguments)]) == 2
    assert "FAIL variant a: hyper_analysis.z" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--variant", "CKPT"], "has no name: pass NAME="),
        (["--variant", "light=CKPT"], "name it by "),
        (
            ["--bundle", "BUNDLE", "--out", "x", "--variant", "light=CKPT"],
            "a variant named light is there already",
        ),
        (["--bundle", "BUNDLE", "--subset", "decode"], "written to another folder"),
        (["--bundle", "BUNDLE", "--subset", "birds", "--out", "x"], "no task"),
    ],
)
def test_a_wrong_use_is_refused(
    with_variant, variant_checkpoint, tmp_path, monkeypatch, capsys, arguments, said
):
    places = {"BUNDLE": str(with_variant[0].path), "CKPT": str(variant_checkpoint)}
    monkeypatch.chdir(tmp_path)
    assert export([re.sub("BUNDLE|CKPT", lambda m: places[m[0]], argument) for argument in arguments]) == 2
    assert said in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def parts(task_bundle, with_variant, tmp_path_factory):
    """Parts of bundles by what they are for."""
    folder = tmp_path_factory.mktemp("parts")
    found = {}
    for use, source in (
        ("decode", with_variant[0].path),
        ("encode", with_variant[0].path),
        ("convnext", task_bundle),
    ):
        found[use], checks = extend_bundle(source, folder / use, ExportOptions(subset=(use,)))
        assert checks == ()
    return found


def test_a_part_holds_what_its_use_needs_and_no_other_file(parts):
    assert names(parts["decode"]) == ENTROPY | {"synthesis", "synthesis_light"}
    assert names(parts["encode"]) == ENTROPY | {"analysis", "analysis_light", "hyper_analysis"}
    assert names(parts["convnext"]) == ENTROPY | {"task_convnext"}
    for use, bundle in parts.items():
        files = {
            path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()
        }
        graphs = {stored.file for graph in bundle.manifest.graphs for stored in graph.files()}
        assert files == graphs | {"manifest.json", "entropy.npz"}
        assert bundle.manifest.notes[-1] == f"a part of the bundle, for {use} alone"
        json.loads((bundle.path / "manifest.json").read_text())


def test_what_one_part_encodes_another_decodes_and_a_third_predicts_from(parts, task_bundle):
    pixels = sample_photo()[:256, :256]
    with (
        Codec(parts["encode"]) as encoder,
        Codec(parts["decode"]) as decoder,
        Codec.load(task_bundle) as whole,
    ):
        data = encoder.compress(pixels)
        assert data == whole.compress(pixels)
        np.testing.assert_array_equal(decoder.decompress(data), whole.decompress(data))
        with Codec(parts["convnext"]) as predictor:
            np.testing.assert_array_equal(predictor.infer(data, "convnext"), whole.infer(data, "convnext"))


def test_what_a_part_lacks_is_said_in_one_line(parts, tmp_path, capsys):
    with (
        Codec(parts["encode"]) as encoder,
        Codec(parts["decode"]) as decoder,
        Codec(parts["convnext"]) as tasks,
    ):
        data = encoder.compress(photo())
        with pytest.raises(
            BundleError, match="holds no graph 'analysis': it was exported for decoding alone"
        ):
            decoder.compress(photo())
        with pytest.raises(
            BundleError, match="holds no graph 'synthesis': it was exported for encoding alone"
        ):
            encoder.decompress(data)
        with pytest.raises(BundleError, match="holds no graph 'synthesis': it was exported for tasks alone"):
            tasks.decompress(data)
    Image.fromarray(photo()).save(tmp_path / "a.png")
    file = ["-o", str(tmp_path / "a.polc"), "--bundle", str(parts["decode"].path)]
    assert polc(["compress", str(tmp_path / "a.png"), *file]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "it was exported for decoding alone" in line


def test_several_uses_are_one_part_and_formats_come_with_it(task_bundle, tmp_path):
    options = ExportOptions(subset=("decode", "convnext"), formats=Formats(half=True), validate=False)
    bundle, _ = extend_bundle(task_bundle, tmp_path / "x", options)
    assert names(bundle) == ENTROPY | {"synthesis", "task_convnext"}
    assert [task.name for task in bundle.manifest.tasks] == ["convnext"]
    halves = {graph.name for graph in bundle.manifest.graphs if graph.precision == "fp16"}
    assert halves == {"synthesis", "task_convnext"}
    assert not list((tmp_path / "x").rglob("*analysis*"))


def test_a_checkpoint_is_exported_as_a_part(tiny_checkpoint, tmp_path):
    options = ExportOptions(subset=("decode",), validate=False)
    bundle = export_bundle(tiny_checkpoint, tmp_path / "x", options).bundle
    assert names(bundle) == ENTROPY | {"synthesis"}
    with pytest.raises(
        UsageError, match="no use 'birds' to make a part of the bundle for; there are decode, encode"
    ):
        export_bundle(tiny_checkpoint, tmp_path / "y", ExportOptions(subset=("birds",)))


def test_a_variant_trained_further_keeps_its_name_in_the_files(with_variant):
    """A file says which networks made it, and is drawn by them."""
    bundle, _ = with_variant
    with Codec(bundle) as codec:
        data = codec.compress(photo(), variant="light")
        assert codec.header(data).codec_id == bundle.manifest.variants[0].codec_id[:4]
        with pytest.raises(UsageError, match="no variant 'dark'; it has light"):
            codec.compress(photo(), variant="dark")
        torch.testing.assert_close(codec.reconstruct(photo(), variant="light").shape, (1, 3, 192, 192))
