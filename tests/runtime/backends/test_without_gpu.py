"""What a user is told where TensorRT, cuda-bindings, a driver or a GPU is missing."""

import inspect
import re
import subprocess
import sys

import pytest
from emulated_gpu import EmulatedRuntime

from polc_runtime import BackendUnavailable, Codec
from polc_runtime.backends.environment import Component, cuda_driver
from polc_runtime.backends.tensorrt import cuda
from polc_runtime.backends.tensorrt.api import import_tensorrt, is_strongly_typed, parse_version
from polc_runtime.backends.tensorrt.cuda import RUNTIMES, Cuda, import_runtime


def has_gpu():
    try:
        return Cuda.open().device.name
    except BackendUnavailable:
        return ""


def has_tensorrt():
    try:
        import_tensorrt()
    except BackendUnavailable:
        return False
    return True


def test_a_missing_tensorrt_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable) as caught:
        Codec.load("nano", backend="tensorrt")
    assert str(caught.value) == "the package tensorrt is not installed: pip install 'polc[tensorrt]'"


def test_missing_cuda_bindings_are_named_with_their_install_command(monkeypatch):
    for name in RUNTIMES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable) as caught:
        Cuda.open()
    assert str(caught.value) == "the package cuda-bindings is not installed: pip install 'polc[tensorrt]'"


def test_an_old_tensorrt_is_refused(monkeypatch):
    old = type(sys)("tensorrt")
    old.__version__ = "8.5.3.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendUnavailable, match=r"TensorRT 8.5.3.1 is too old, 8.6 or newer is needed"):
        import_tensorrt()


def test_a_package_of_stubs_alone_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", type(sys)("tensorrt"))
    with pytest.raises(BackendUnavailable, match="not whole"):
        import_tensorrt()


def test_a_tensorrt_whose_library_is_missing_says_which(tmp_path, monkeypatch):
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt/__init__.py").write_text(
        "raise OSError('libnvinfer.so.8: cannot open shared object')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendUnavailable, match=r"TensorRT does not load here: libnvinfer\.so\.8"):
        import_tensorrt()


def test_without_a_driver_the_real_bindings_give_one_line():
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    if name := has_gpu():
        pytest.skip(f"there is a GPU here: {name}")
    with pytest.raises(BackendUnavailable, match="no GPU can be used here .* NVIDIA's driver") as caught:
        Cuda.open()
    assert "\n" not in str(caught.value)


def test_the_real_bindings_have_every_function_that_is_called():
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    api = import_runtime()
    used = re.findall(r"\"(cuda[A-Z]\w+)\"", inspect.getsource(cuda))
    assert len(used) > 20 and [name for name in used if not hasattr(api, name)] == []
    assert api.cudaMemcpyKind.cudaMemcpyHostToDevice and api.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None


@pytest.mark.skipif(not has_tensorrt(), reason="tensorrt is not installed")
def test_the_backend_refuses_before_tensorrt_looks_for_a_gpu():
    if name := has_gpu():
        pytest.skip(f"there is a GPU here: {name}")
    with pytest.raises(BackendUnavailable, match="no GPU can be used here"):
        Codec.load("nano", backend="tensorrt")


def test_the_backend_imports_without_onnxruntime():
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import polc_runtime.backends.tensorrt.backend, polc_runtime.codec.codec, polc_runtime.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_environment_lists_the_gpus(monkeypatch):
    monkeypatch.setitem(sys.modules, RUNTIMES[0], EmulatedRuntime())
    assert cuda_driver() == Component(True, "CUDA up to 13.1, Emulated GPU (9.0)")


def test_the_environment_says_why_there_is_no_gpu():
    if name := has_gpu():
        pytest.skip(f"there is a GPU here: {name}")
    found = cuda_driver()
    assert not found.available and ("no GPU can be used here" in found.detail or found.install)


def test_versions():
    assert parse_version("10.13.3.9") == (10, 13) and parse_version("8.6.0") == (8, 6)
    assert [is_strongly_typed(v) for v in ("8.6.1", "9.3.0", "10.0.1", "11.0.0")] == [
        False,
        False,
        True,
        True,
    ]
