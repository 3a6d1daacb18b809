"""The backend torch runs a model and leaves it as it is: kernels, modes, in several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from formula import formula_codec

from polc import preset, set_attention_kernel
from polc.attention import KERNELS
from polc.backends.evaluation import evaluating
from polc.backends.torch import TorchBackend
from polc_runtime.backends import BackendOptions

IMAGE = {
    "image": np.random.default_rng(0).random((1, 3, 192, 192), np.float32),
    "quality": np.array([4], np.float32),
}


@pytest.fixture
def codec():
    return formula_codec(preset("polc-tiny"))


def state_of(model):
    """Kernel and mode of every module."""
    return {name: (getattr(m, "kernel", None), m.training) for name, m in model.named_modules()}


def hyper_latent(codec):
    generator = np.random.default_rng(1)
    z_hat = generator.standard_normal((1, codec.config.hyper_dim, 3, 3)).round().astype(np.float32)
    return {"z_hat": z_hat, "quality": IMAGE["quality"]}


@pytest.fixture
def used(monkeypatch):
    """Names of the kernels that run, in order; `native` is stood in for, so that it is there everywhere."""
    names = []

    def noting(name, kernel):
        def run(*arguments):
            names.append(name)
            return kernel(*arguments)

        return run

    tiled = KERNELS["tiled"]
    for name in ("tiled", "native", "auto", "reference"):
        monkeypatch.setitem(KERNELS, name, noting(name, tiled))
    return names


@pytest.mark.parametrize("mode", [True, False])
def test_a_model_keeps_its_kernels_and_its_mode(codec, mode):
    set_attention_kernel(codec, "reference")
    set_attention_kernel(codec.h_s, "portable")
    codec.train(mode)
    codec.g_a.eval()
    before = state_of(codec)
    backend = TorchBackend(codec)
    backend.run("hyper_synthesis", hyper_latent(codec))
    backend.run("analysis", IMAGE)
    assert state_of(codec) == before


def test_graphs_that_must_agree_run_without_native_operators_and_others_with_the_models_kernels(codec, used):
    set_attention_kernel(codec, "native")
    backend = TorchBackend(codec)
    backend.run("hyper_synthesis", hyper_latent(codec))
    assert set(used) == {"tiled"}
    used.clear()
    backend.run("analysis", IMAGE)
    assert set(used) == {"native"}


def test_without_native_operators_no_graph_runs_them(codec, used):
    set_attention_kernel(codec, "native")
    TorchBackend(codec, options=BackendOptions(native_ops=False)).run("analysis", IMAGE)
    assert set(used) == {"tiled"}


def test_a_model_in_training_mode_runs_as_in_evaluation_mode(codec):
    for module in codec.modules():
        if hasattr(module, "drop_path_rate"):
            module.drop_path_rate = 0.5
    expected = TorchBackend(codec.eval()).run("analysis", IMAGE)["y"]
    codec.train()
    np.testing.assert_array_equal(TorchBackend(codec).run("analysis", IMAGE)["y"], expected)


def test_threads_run_graphs_with_different_kernels_at_once(codec):
    """The exact graph in one thread and the other graphs in others: each gives what it gives alone."""
    set_attention_kernel(codec, "reference")
    alone = TorchBackend(codec)
    expected = [
        alone.run("hyper_synthesis", hyper_latent(codec))["params"],
        alone.run("analysis", IMAGE)["y"],
    ]
    codec.train()
    before = state_of(codec)
    backend = TorchBackend(codec)

    def run(number):
        if number % 2:
            return backend.run("analysis", IMAGE)["y"]
        return backend.run("hyper_synthesis", hyper_latent(codec))["params"]

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(run, range(24))):
            np.testing.assert_array_equal(found, expected[number % 2])
    assert state_of(codec) == before


def test_the_last_of_two_users_gives_a_module_its_mode_back():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    first, second = evaluating(module), evaluating(module)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not module.training and not module[0].training
    second.__exit__(None, None, None)
    assert module.training and module[0].training and not module[1].training
