"""TorchScript files in a bundle: exported, run by the backend, by the command lines and by plain libtorch."""

import json
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from polc import load_checkpoint
from polc.backends.torchscript import TorchScriptBackend
from polc_export.bundle_folder import copy_bundle
from polc_export.checks import sample_photo
from polc_export.cli import main as export
from polc_export.validation.codec import CASES, validate
from polc_export.writer import add_torchscript
from polc_runtime import BackendUnavailable, Bundle, BundleError, Codec
from polc_runtime.backends import BackendOptions
from polc_runtime.bench.speed.plan import synthetic_picture
from polc_runtime.cli import main as polc

EXAMPLE = Path(__file__).parents[2] / "examples/libtorch"


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tiny_checkpoint, tmp_path_factory):
    """The very small codec's bundle, with TorchScript files added."""
    folder = tmp_path_factory.mktemp("torchscript") / "tiny.bundle"
    folder.mkdir()
    codec = load_checkpoint(tiny_checkpoint).codec
    add_torchscript(folder, copy_bundle(folder, Bundle.load(tiny_bundle)), list(codec.graphs().values()))
    return folder


@pytest.fixture
def backend(bundle):
    return TorchScriptBackend(Bundle.load(bundle), BackendOptions())


def test_the_manifest_lists_the_files_with_their_hashes(bundle, tiny_bundle):
    before, after = (json.loads((b / "manifest.json").read_text()) for b in (tiny_bundle, bundle))
    for old, new in zip(before["graphs"], after["graphs"], strict=True):
        entry = new.pop("formats")["torchscript"]
        assert new == old and entry["file"] == f"graphs/{new['name']}.ts"
        Bundle.load(bundle).read(entry["file"], entry["sha256"])


def test_a_bundle_that_is_copied_keeps_its_torchscript_files(bundle, tmp_path):
    copy_bundle(tmp_path, Bundle.load(bundle))
    files = [{p.name: p.read_bytes() for p in (f / "graphs").iterdir()} for f in (bundle, tmp_path)]
    assert files[0] == files[1]


def test_files_are_read_by_the_other_backend_and_decode_to_the_same_picture(bundle, backend):
    pixels = synthetic_picture(200, 250)
    with Codec(Bundle.load(bundle), backend) as ours, Codec.load(bundle) as theirs:
        data = ours.compress(pixels, 3.5)
        found, expected = ours.decompress(data), theirs.decompress(data)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_exact_graphs_give_the_same_bits_in_every_run(backend, bundle):
    generator = np.random.default_rng(0)
    z_hat = generator.standard_normal((1, Bundle.load(bundle).manifest.plan.hyper.channels, 4, 5), np.float32)
    feeds = {"z_hat": z_hat, "quality": np.array([2.25], np.float32)}
    first = backend.run("hyper_synthesis", feeds)["params"]
    context = backend.run("context_0", {"params": first})
    for _ in range(4):
        np.testing.assert_array_equal(backend.run("hyper_synthesis", feeds)["params"], first)
        for name, value in backend.run("context_0", {"params": first}).items():
            np.testing.assert_array_equal(value, context[name])


def test_the_number_of_threads_is_set_before_a_run(bundle):
    before = torch.get_num_threads()
    try:
        backend = TorchScriptBackend(Bundle.load(bundle), BackendOptions(threads=3))
        channels = 2 * backend.bundle.manifest.plan.latent.channels
        backend.run("context_0", {"params": np.zeros((1, channels, 4, 4), np.float32)})
        assert torch.get_num_threads() == 3 and backend.describe()["threads"] == 3
    finally:
        torch.set_num_threads(before)


def test_a_bundle_without_torchscript_says_how_to_make_it(tiny_bundle):
    with pytest.raises(BackendUnavailable, match="no TorchScript files: .*polc-export --format torchscript"):
        TorchScriptBackend(Bundle.load(tiny_bundle), BackendOptions())


def test_a_damaged_file_is_refused_before_torch_reads_it(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "graphs/synthesis.ts").write_bytes(b"no archive")
    backend = TorchScriptBackend(Bundle.load(copy), BackendOptions())
    with pytest.raises(BundleError, match=r"graphs/synthesis.ts is damaged or replaced"):
        backend.run("synthesis", {})


def test_wrong_shapes_are_one_line(backend):
    with pytest.raises(BundleError, match="TorchScript failed in the graph context_0: ") as caught:
        backend.run("context_0", {"params": np.zeros((1, 3, 4, 4), np.float32)})
    assert "\n" not in str(caught.value)


def test_other_weights_than_the_bundles_fail_the_validation(backend, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("polc_export.validation.codec.CASES", CASES[:2])
    model = load_checkpoint(tiny_checkpoint).codec
    with torch.no_grad():
        model.g_s[3].conv.bias[1] += 1e-3
    checks = validate(backend.bundle, model, sample_photo(), backend=backend)
    assert all(name.startswith("torchscript ") for name in checks) and len(checks) > 20
    assert [check.name for check in checks.values() if not check.passed] == ["torchscript synthesis.image"]


def test_a_bundle_alone_cannot_be_traced(tiny_bundle, capsys):
    assert export(["--bundle", str(tiny_bundle), "--format", "torchscript"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "TorchScript is traced from the PyTorch model, which a bundle does not hold" in line


def is_registered():
    return any(p.name == "torchscript" for p in metadata.entry_points(group="polc.backends"))


registered = pytest.mark.skipif(not is_registered(), reason="polc was installed before it had the backend")


@registered
def test_commands_take_the_backend(bundle, tmp_path):
    from PIL import Image

    Image.fromarray(synthetic_picture(90, 70)).save(tmp_path / "photo.png")
    common = ["--bundle", str(bundle), "--backend", "torchscript"]
    assert polc(["compress", str(tmp_path / "photo.png"), "-o", str(tmp_path / "a.polc"), *common]) == 0
    assert polc(["decompress", str(tmp_path / "a.polc"), "-o", str(tmp_path / "a.png"), *common]) == 0
    assert Image.open(tmp_path / "a.png").size == (70, 90)
    assert polc(["verify", str(tmp_path / "a.polc"), "--bundle", str(bundle)]) == 0


@pytest.fixture(scope="module")
def run_graph(tmp_path_factory):
    """The C++ example, built against the libtorch inside the pip package."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("no CMake or no C++ compiler")
    folder = tmp_path_factory.mktemp("libtorch")
    abi = int(torch.compiled_with_cxx11_abi())
    settings = [f"-DTORCH_DIR={torch.__path__[0]}", f"-DTORCH_CXX11_ABI={abi}", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (["cmake", "-S", EXAMPLE, "-B", folder, *settings], ["cmake", "--build", folder]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run_graph"


def test_plain_libtorch_gives_the_python_runtimes_numbers(run_graph, backend, bundle, tmp_path):
    generator = np.random.default_rng(0)
    quality = np.array([2.5, 6.0], np.float32)
    image = generator.random((2, 3, 192, 256), np.float32)
    latent = backend.run("analysis", {"image": image, "quality": quality})["y"]
    for graph, inputs in (
        ("analysis", {"image": image, "quality": quality}),
        ("synthesis", {"y_hat": np.rint(latent), "quality": quality}),
    ):
        command = [run_graph, bundle / f"graphs/{graph}.ts", tmp_path / graph]
        for name, value in inputs.items():
            value.tofile(tmp_path / f"{name}.f32")
            command += [tmp_path / f"{name}.f32", ",".join(map(str, value.shape))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        for index, expected in enumerate(backend.run(graph, inputs).values()):
            found = np.fromfile(tmp_path / f"{graph}{index}.f32", np.float32).reshape(expected.shape)
            assert np.abs(found - expected).max() <= 1e-6 * expected.std()


def test_the_example_says_what_is_wrong(run_graph, tmp_path):
    done = subprocess.run([run_graph], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("usage: run_graph GRAPH.ts OUT")
    done = subprocess.run([run_graph, "none.ts", "o", "i", "1"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("run_graph: ")
