"""Codecs of other families on the whole way: checkpoint, bundle, files, images; and ladders of bundles."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compressai_models import random_model
from formula import formula_codec
from PIL import Image

from polc import load_checkpoint, preset, save_official
from polc.backends.torch import TorchBackend
from polc_export import ExportOptions, export_bundle, write_ladder
from polc_export.bundle_folder import copy_bundle
from polc_export.checks import sample_photo
from polc_export.cli import main as export
from polc_export.writer import add_torchscript
from polc_runtime import Bundle, Codec, ExportError, UsageError
from polc_runtime.bitstream.container import Container
from polc_runtime.cli import main as polc

N, M = 16, 24


@pytest.fixture(scope="module")
def model():
    """One of compressai's own."""
    return random_model("mbt2018-mean", N, M)


@pytest.fixture(scope="module")
def mean(model, tmp_path_factory):
    """Its checkpoint as compressai's examples write it, and what the command made of it and printed."""
    folder = tmp_path_factory.mktemp("mean")
    torch.save({"epoch": 9, "state_dict": model.state_dict()}, folder / "ckpt.pth.tar")
    arguments = ["--stage1", folder / "ckpt.pth.tar", "--out", folder / "b", "--quality", 3]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert export([*map(str, arguments)]) == 0
    return folder / "ckpt.pth.tar", Bundle.load(folder / "b"), printed.getvalue().splitlines()


def photo(height, width):
    return sample_photo()[100 : 100 + height, 150 : 150 + width]


def test_every_graph_is_validated_and_one_pass_codes_the_latent(mean):
    _, bundle, lines = mean
    checks = [line for line in lines if line.startswith("ok   ")]
    graphs = ["analysis", "hyper_analysis", "hyper_synthesis", "synthesis"]
    assert [graph.name for graph in bundle.manifest.graphs] == graphs
    for graph in graphs:
        assert any(line.startswith(f"ok   {graph}.") for line in checks)
    for check in ("symbols that differ: 0 ", "table rows that differ: 0 ", "decoded pixels that differ"):
        assert any(line.startswith(f"ok   {check}") for line in checks)
    plan = bundle.manifest.plan
    assert [step.to_dict() for step in plan.steps] == [
        {"graph": "hyper_synthesis", "channels": [0, M], "positions": "all"}
    ]
    assert bundle.manifest.quality_range == (3, 3) and not plan.fits_version_1
    assert plan.exact_graphs == {"hyper_synthesis"} and plan.macs.keys() == set(graphs)


def test_its_graphs_are_plain_convolutions(mean):
    _, bundle, _ = mean
    allowed = {"Conv", "ConvTranspose", "LeakyRelu", "Pow", "Sqrt", "Reciprocal", "Mul", "Split", "Clip"}
    for graph in bundle.manifest.graphs:
        model = onnx.load_from_string(bundle.read(graph.file, graph.sha256))
        assert {node.op_type for node in model.graph.node} <= allowed, graph.name
        assert "quality" not in graph.inputs


@pytest.mark.parametrize("size", [(64, 64), (100, 150), (1, 1)])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_files_hold_compressais_bytes_and_decode_to_its_image(model, mean, size, backend):
    checkpoint, bundle, _ = mean
    made = TorchBackend(load_checkpoint(checkpoint).codec) if backend == "torch" else backend
    pixels = photo(*size)
    with Codec(bundle, made) as codec:
        data = codec.compress(pixels)
        container = Container.unpack(data)
        decoded = codec.decompress(data)
    height, width = bundle.manifest.plan.padded_size(*size)
    padded = np.pad(pixels, ((0, height - size[0]), (0, width - size[1]), (0, 0)), "edge")
    image = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        coded = model.compress(image)
        expected = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    (y,), (z,) = coded["strings"]
    assert container.version == 2 and container.z == z
    assert [bytes(stream) for stream in container.y_streams(M * height * width // 256)] == [y]
    expected = (expected[0].permute(1, 2, 0) * 255).round()[: size[0], : size[1]].numpy()
    assert np.abs(decoded - expected).max() <= 1


def test_large_images_are_coded_in_tiles_as_whole(mean):
    _, bundle, _ = mean
    pixels = photo(400, 320)
    whole, tiled = Codec(bundle), Codec(bundle, tile_pixels=192 * 192)
    padded = np.pad(pixels, ((0, 48), (0, 0), (0, 0)), "edge")
    for found, expected in zip(
        tiled.networks.analyse(padded, 3), whole.networks.analyse(padded, 3), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=2e-5)
    data = whole.compress(pixels)
    images = [codec.networks.synthesise(codec.decode(data).y_hat, 3) for codec in (tiled, whole)]
    np.testing.assert_allclose(*images, atol=2e-6)
    np.testing.assert_array_equal(
        tiled.decompress(tiled.compress(pixels)), whole.decompress(tiled.compress(pixels))
    )


def test_commands_code_and_describe_its_files(mean, tmp_path, capsys):
    _, bundle, _ = mean
    Image.fromarray(photo(90, 70)).save(tmp_path / "a.png")
    with_bundle = ["--bundle", str(bundle.path)]
    file = str(tmp_path / "a.polc")
    assert polc(["compress", str(tmp_path / "a.png"), "-o", file, "--quality", "3", *with_bundle]) == 0
    assert polc(["verify", file, *with_bundle]) == 0
    assert polc(["decompress", file, "-o", str(tmp_path / "b.png"), *with_bundle]) == 0
    assert Image.open(tmp_path / "b.png").size == (70, 90)
    assert polc(["info", file]) == 0 and polc(["info", str(bundle.path)]) == 0
    capsys.readouterr()
    assert polc(["compress", str(tmp_path / "a.png"), "-o", "x", "--quality", "4", *with_bundle]) == 2
    assert "3" in capsys.readouterr().err
    assert polc(["verify", file, "--bundle", "nano"]) == 2
    assert "another model" in capsys.readouterr().err


def test_it_is_traced_for_torchscript(mean, tmp_path):
    checkpoint, bundle, _ = mean
    specs = load_checkpoint(checkpoint).codec.graphs()
    add_torchscript(tmp_path, copy_bundle(tmp_path, bundle), list(specs.values()))
    pixels = photo(80, 120)
    with Codec.load(tmp_path, "torchscript") as traced, Codec(bundle) as codec:
        np.testing.assert_array_equal(
            traced.decompress(codec.compress(pixels)), codec.decompress(traced.compress(pixels))
        )


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "bmshj2018-factorized"])
def test_codecs_without_means_or_hyper_latent_are_exported_too(name, tmp_path):
    torch.save(random_model(name, N, M).state_dict(), tmp_path / "a.pth")
    result = export_bundle(tmp_path / "a.pth")
    assert result.checks and result.bundle.manifest.quality_range == (4, 4)
    with Codec(result.bundle) as codec:
        pixels = photo(50, 60)
        decoded = codec.decompress(codec.compress(pixels))
        assert decoded.shape == pixels.shape and decoded.std() > 20


def test_tinylic_is_exported_with_the_nine_steps(tmp_path):
    path = tmp_path / "tiny.pth.tar"
    save_official(path, formula_codec(preset("polc-tiny")))
    state = torch.load(path, weights_only=True)["state_dict"]
    ends = ("Gain", ".gamma_1", ".gamma_2")
    torch.save({key: value for key, value in state.items() if not key.endswith(ends)}, path)
    bundle = export_bundle(path, options=ExportOptions(quality=6.1)).bundle
    quality = round(6.1 * 256) / 256
    assert bundle.manifest.quality_range == (quality, quality) and bundle.manifest.plan.fits_version_1
    assert len(bundle.manifest.plan.steps) == 9 and bundle.manifest.model["levels"] == 0
    with Codec(bundle) as codec:
        data = codec.compress(photo(70, 210))
        assert Container.unpack(data).version == 1 and Container.unpack(data).header.quality == quality
        assert codec.decompress(data).shape == (70, 210, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stage1", "POLC", "--quality", "3"], "the codec has the qualities 1 to 8"),
        (["--stage1", "MEAN", "--quality", "9"], "9"),
        (["--bundle", "BUNDLE", "--quality", "3", "--precision", "fp16", "--force"], "take a checkpoint"),
    ],
)
def test_a_quality_where_none_can_be_chosen_is_refused(
    mean, tiny_checkpoint, tmp_path, capsys, arguments, said
):
    places = {"POLC": tiny_checkpoint, "MEAN": mean[0], "BUNDLE": mean[1].path}
    arguments = [str(places.get(argument, argument)) for argument in arguments]
    assert export([*arguments, "--out", str(tmp_path / "x")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def rungs(mean, tmp_path_factory):
    """Bundles of the qualities 3, 5 and 7."""
    folder = tmp_path_factory.mktemp("rungs")
    found = [mean[1].path]
    for quality in (7, 5):
        torch.save(random_model("mbt2018-mean", N, M, seed=quality).state_dict(), folder / f"{quality}.pth")
        options = ExportOptions(quality=quality, validate=False)
        found.append(export_bundle(folder / f"{quality}.pth", options=options).bundle.path)
    return found


@pytest.mark.parametrize("link", [False, True])
def test_a_ladder_holds_the_bundles_as_they_are_in_order_of_quality(rungs, tmp_path, link):
    ladder = write_ladder(tmp_path / "ladder", rungs, link)
    assert json.loads((tmp_path / "ladder/ladder.json").read_text()) == {
        "format": [1, 0],
        "bundles": [{"quality": q, "path": f"q{q}"} for q in (3, 5, 7)],
    }
    assert ladder.qualities == (3, 5, 7)
    for path, source in zip(("q3", "q7", "q5"), rungs, strict=True):
        for file in (file for file in source.rglob("*") if file.is_file()):
            copy = tmp_path / "ladder" / path / file.relative_to(source)
            assert copy.read_bytes() == file.read_bytes()
            assert copy.samefile(file) == (link and file.name != "manifest.json")


def test_a_ladder_codes_at_each_of_its_qualities(rungs, tmp_path, capsys):
    assert export(["ladder", str(tmp_path / "ladder"), *map(str, rungs)]) == 0
    assert "qualities 3, 5, 7" in capsys.readouterr().out
    Image.fromarray(photo(64, 64)).save(tmp_path / "a.png")
    bundle = ["--bundle", str(tmp_path / "ladder")]
    for quality in (3, 7):
        file = str(tmp_path / f"{quality}.polc")
        assert (
            polc(["compress", str(tmp_path / "a.png"), "-o", file, "--quality", str(quality), *bundle]) == 0
        )
        assert polc(["decompress", file, "-o", str(tmp_path / f"{quality}.png"), *bundle]) == 0
        assert Container.unpack(Path(file).read_bytes()).header.quality == quality


def test_a_ladder_of_what_is_none_is_refused(rungs, tiny_bundle, tmp_path, mean):
    same = shutil.copytree(mean[1].path, tmp_path / "same")
    with pytest.raises(UsageError, match="both have the quality 3"):
        write_ladder(tmp_path / "x", [*rungs, same])
    with pytest.raises(UsageError, match="has the qualities 1 to 8: a ladder holds bundles of one each"):
        write_ladder(tmp_path / "x", [tiny_bundle])
    with pytest.raises(UsageError, match="none is named"):
        write_ladder(tmp_path / "x", [])
    with pytest.raises(ExportError, match="same exists; replace it with force=True"):
        write_ladder(same, rungs)
    with pytest.raises(ExportError, match=r"has no ladder\.json, so it is not replaced"):
        write_ladder(same, rungs, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["same"]
