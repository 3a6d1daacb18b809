"""ONNX Runtime that is there but does not load is not called missing."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            'raise ImportError("libany.so: cannot open")',
            "onnxruntime cannot be loaded: libany.so: cannot open",
        ),
        ('raise ModuleNotFoundError("onnxruntime")', "the backend onnxruntime is not installed: pip install"),
    ],
)
def test_the_reason_is_told(tmp_path, module, said):
    (tmp_path / "onnxruntime.py").write_text(module)
    done = subprocess.run(
        [sys.executable, "-m", "polc_runtime", "verify", "none"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2 and f"polc: error: {said}" in done.stderr
